"""JSON and TOML: what the first cannot hold, and one way to say what is wrong with a file."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from trustvlm.exceptions import InputError
from trustvlm.text import UNSAFE


def nan_to_null(value: Any) -> Any:
    """Replace NaN and infinities by None, in mappings and sequences too; JSON has neither.

    Examples
    --------
    >>> nan_to_null({"aurc": float("nan"), "n": 3, "rows": [1.5, float("inf")]})
    {'aurc': None, 'n': 3, 'rows': [1.5, None]}
    """
    if isinstance(value, dict):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def json_text(value: Any, **options: Any) -> str:
    r"""Write JSON in which signs stand as themselves, but those that a terminal would obey.

    Parameters
    ----------
    value
        Without NaN, see `nan_to_null`.
    options
        Of `json.dumps`.

    Examples
    --------
    >>> print(json_text(["caf\u00e9", "gpj.\u202etxt"]))
    ["café", "gpj.\u202etxt"]
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    # Line ends between values are no part of a text; inside texts json has escaped them.
    return UNSAFE.sub(lambda sign: sign[0] if sign[0] < " " else f"\\u{ord(sign[0]):04x}", text)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read as TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def first_invalid(error: Any) -> tuple[str, str]:
    """Return where the first fault that pydantic states lies, and what it is; none of the input.

    Examples
    --------
    >>> from pydantic import TypeAdapter, ValidationError
    >>> try:
    ...     TypeAdapter(dict[str, list[int]]).validate_python({"shots": [1, "two"]})
    ... except ValidationError as error:
    ...     print(first_invalid(error)[0])
    shots.1
    """
    first = error.errors()[0]
    return ".".join(map(str, first["loc"]))[:80], first["msg"]
