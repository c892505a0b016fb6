"""API keys, from the environment or a file."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from trustvlm.exceptions import InputError

__all__ = ["Keys", "read_keys"]

_LEAST = 16


class Keys:
    """API keys, compared in constant time.

    Examples
    --------
    >>> keys = Keys(["a key of some length"])
    >>> keys.fit("a key of some length"), keys.fit("another"), keys.fit("")
    (True, False, False)
    """

    def __init__(self, keys: Collection[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def fit(self, offered: str) -> bool:
        """Whether this is one of the keys; every one is looked at, whichever fits."""
        digest = hashlib.sha256(offered.encode("utf-8", "surrogateescape")).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def read_keys(file: str, environment: Mapping[str, str] = os.environ) -> Keys:
    """Read keys from `TRUSTVLM_SERVE_KEYS`, separated by commas, and from a file, one a line.

    Raises
    ------
    InputError
        If the file cannot be read, or a key is so short that it could be guessed.
    """
    keys = [key.strip() for key in environment.get("TRUSTVLM_SERVE_KEYS", "").split(",")]
    if file:
        try:
            keys += [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The file of API keys {file} cannot be read: {error}.") from error
        if not any(keys):
            raise InputError(f"The file of API keys {file} holds none, one is expected a line.")
    keys = [key for key in keys if key]
    if any(len(key) < _LEAST for key in keys):
        raise InputError(
            f"Expected every API key to have at least {_LEAST} characters, but one is shorter. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return Keys(keys)
