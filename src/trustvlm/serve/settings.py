"""API keys, from the environment or a file."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from trustvlm.exceptions import InputError

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


# Everything that can be configured about the service, in one table.

PREFIX = "TRUSTVLM_SERVE_"


def _setting(default: Any, help: str, *, least: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "least": least})


@dataclass(frozen=True)
class Settings:
    """The configuration of the service; every field is a flag and an environment variable.

    A flag beats the variable, the variable beats the default. API keys are no field: they come from
    `TRUSTVLM_SERVE_KEYS` or a file, never from the command line, where others could read them.

    Raises
    ------
    InputError
        If a number is below what makes sense, or two settings contradict each other.

    Examples
    --------
    >>> Settings(port=9000).port, flag("max_body_mib"), environment_name("max_body_mib")
    (9000, '--max-body-mib', 'TRUSTVLM_SERVE_MAX_BODY_MIB')
    >>> Settings(batch_images=0)
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: Expected `batch_images` to be at least 1, but got 0.
    """

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 for every one.")
    port: int = _setting(8000, "Port to listen on.", least=1)
    max_connections: int = _setting(
        512, "Connections open at a time; beyond them the answer is 503.", least=1
    )
    max_body_mib: int = _setting(32, "Largest request body, in MiB.", least=1)
    max_bodies_mib: int = _setting(
        256, "Bodies held at a time, of all requests together, in MiB.", least=1
    )
    max_images: int = _setting(64, "Images in one request.", least=1)
    max_pixels: int = _setting(
        40_000_000, "Width times height of one image; checked before decoding.", least=64
    )
    queue_images: int = _setting(
        256, "Images that wait for the model; beyond them the answer is 429.", least=1
    )
    batch_images: int = _setting(32, "Images of all clients that are computed together.", least=1)
    batch_ms: float = _setting(
        5.0, "How long an image waits for others to share its batch, in milliseconds.", least=0
    )
    request_seconds: float = _setting(
        60.0, "Time for one request, waiting included; then the answer is 503.", least=0.1
    )
    image_seconds: float = _setting(
        10.0, "Time to decode one image; then its verdict is an error.", least=0.1
    )
    head_seconds: float = _setting(
        10.0,
        "Time in which the head of a request has to arrive; then the connection is closed.",
        least=0.1,
    )
    body_seconds: float = _setting(
        20.0, "Time in which a request body has to arrive; then the answer is 408.", least=0.1
    )
    shutdown_seconds: float = _setting(
        30.0, "Time to finish accepted requests when told to stop.", least=0
    )
    remember_images: int = _setting(
        2048, "Images whose embeddings are remembered, in case they come again.", least=0
    )

    feedback: str = _setting(
        "", "SQLite file of kept images and answers. Default: NAME.feedback.sqlite by the model."
    )
    max_kept_mib: int = _setting(2048, "Images kept for review, in MiB; 0 keeps none.", least=0)
    shots: str = _setting(
        "", "Folder of the example images, to show them. Default: where they were when fitted."
    )
    keys_file: str = _setting("", "File of API keys, one a line; without any key everyone may ask.")
    cors: str = _setting("", "Origins whose pages may ask, separated by commas.")

    hosts: str = _setting(
        "",
        "Names under which a proxy reaches a service of this machine alone, separated by commas; "
        "with API keys every name is answered.",
    )

    @property
    def names(self) -> frozenset[str]:
        """The names of `hosts`, in lower case."""
        return frozenset(part.strip().lower() for part in self.hosts.split(",") if part.strip())

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `cors`."""
        return tuple(part.strip().rstrip("/") for part in self.cors.split(",") if part.strip())

    def __post_init__(self) -> None:
        for known in fields(self):
            value, least = getattr(self, known.name), known.metadata["least"]
            if least is not None and not value >= least:
                raise InputError(
                    f"Expected `{known.name}` to be at least {least}, but got {value!r}."
                )
        if self.queue_images < self.max_images:
            raise InputError(
                f"Expected `queue_images` to be at least `max_images` ({self.max_images}), so that "
                f"every allowed request fits, but got {self.queue_images}."
            )
        if self.max_bodies_mib < self.max_body_mib:
            raise InputError(
                f"Expected `max_bodies_mib` to be at least `max_body_mib` ({self.max_body_mib}), "
                f"so that every allowed body fits, but got {self.max_bodies_mib}."
            )


def setting_fields() -> tuple[Field[Any], ...]:
    """Return the fields of `Settings`, in the order of the table."""
    return fields(Settings)


def environment_name(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def settings_table() -> str:
    """Return the configuration as a Markdown table, which the documentation shows.

    Examples
    --------
    >>> print(settings_table().splitlines()[2])
    | `--host` | `127.0.0.1` | Address to listen on; 0.0.0.0 for every one. |
    """
    rows = ["| flag | default | what it is |", "|---|---|---|"]
    for known in fields(Settings):
        shown = "" if known.default in (None, "") else f"`{known.default}`"
        rows.append(f"| `{flag(known.name)}` | {shown} | {known.metadata['help']} |")
    return "\n".join(rows) + "\n"
