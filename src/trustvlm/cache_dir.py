"""Where trustvlm keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """Return the cache folder; it need not exist yet.

    The environment variable `TRUSTVLM_CACHE` names it; without one it is the platform's folder
    for caches of the user.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, TRUSTVLM_CACHE="elsewhere"):
    ...     cache_dir().name
    'elsewhere'
    """
    if named := os.environ.get("TRUSTVLM_CACHE"):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("trustvlm", appauthor=False))
