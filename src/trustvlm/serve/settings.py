"""What can be configured about the service, and the API keys."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trustvlm.exceptions import InputError
from trustvlm.serve.hosts import AllowedHosts, is_loopback, read_networks, read_origins
from trustvlm.text import join_names


class Settings(BaseSettings):
    """The configuration of the service; every field is a flag and an environment variable.

    A flag beats the variable, the variable beats the default. API keys are no field: they come from
    `TRUSTVLM_SERVE_KEYS` or a file, never from the command line, where others could read them.

    Raises
    ------
    InputError
        If a value is of another type or below what makes sense, or two settings contradict each
        other.

    Examples
    --------
    >>> Settings(port=9000).port, Settings(port=9000).max_body_mib
    (9000, 32)
    >>> Settings(batch_images=0)
    Traceback (most recent call last):
    trustvlm.exceptions.InputError: Expected `batch_images` to be at least 1, but got 0.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRUSTVLM_SERVE_", env_ignore_empty=True, frozen=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every one.")
    port: int = Field(8000, ge=1, le=65_535, description="Port to listen on.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="Where the models compute: auto, cpu, cuda, one of several as cuda:1, or mps.",
    )
    max_connections: int = Field(
        512, ge=1, description="Connections open at a time; beyond them the answer is 503."
    )
    max_body_mib: int = Field(32, ge=1, description="Largest request body, in MiB.")
    max_bodies_mib: int = Field(
        256, ge=1, description="Bodies held at a time, of all requests together, in MiB."
    )
    max_images: int = Field(64, ge=1, description="Images in one request.")
    max_pixels: int = Field(
        40_000_000, ge=64, description="Width times height of one image; checked before decoding."
    )
    queue_images: int = Field(
        256, ge=1, description="Images that wait for the model; beyond them the answer is 429."
    )
    batch_images: int = Field(
        32, ge=1, description="Images of all clients that are computed together."
    )
    batch_ms: float = Field(
        5.0,
        ge=0,
        description="How long an image waits for others to share its batch, in milliseconds.",
    )
    request_seconds: float = Field(
        60.0, ge=0.1, description="Time for one request, waiting included; then the answer is 503."
    )
    image_seconds: float = Field(
        10.0, ge=0.1, description="Time to decode one image; then its verdict is an error."
    )
    head_seconds: float = Field(
        10.0,
        ge=0.1,
        description="Time in which the head of a request has to arrive; then the connection is "
        "closed.",
    )
    body_seconds: float = Field(
        20.0,
        ge=0.1,
        description="Time in which a request body has to arrive; then the answer is 408.",
    )
    shutdown_seconds: float = Field(
        30.0, ge=0, description="Time to finish accepted requests when told to stop."
    )
    remember_images: int = Field(
        2048, ge=0, description="Images whose embeddings are remembered, in case they come again."
    )
    feedback: str = Field(
        "",
        description="SQLite file of kept images and answers. [default: NAME.feedback.sqlite beside "
        "the model]",
    )
    max_kept_mib: int = Field(
        2048,
        ge=0,
        description="Images kept for review, with the verdicts on them, in MiB; 0 keeps none.",
    )
    max_answers: int = Field(
        1_000_000,
        ge=1,
        description="Answers of people in the feedback database; beyond them the answer is 507.",
    )
    when_invalid: Literal["review", "keep"] = Field(
        "review",
        description="What becomes of accepted labels once images are no longer like those that the "
        "model was calibrated on.",
    )
    shots: str = Field(
        "",
        description="Folder of the example images, to show them. [default: where they were when "
        "fitted]",
    )
    keys_file: str = Field(
        "", description="File of API keys, one a line; without any key everyone may ask."
    )
    no_auth: bool = Field(
        False,
        description="Start without API keys on an address that other machines reach: everyone "
        "there may ask.",
    )
    cors: str = Field("", description="Origins whose pages may ask, separated by commas.")
    hosts: str = Field(
        "",
        description="Names under which the service answers, separated by commas, such as "
        "pets.example.org or *.example.org; IP addresses and localhost need not be named.",
    )
    root_path: str = Field(
        "",
        description="Prefix of the addresses under which a proxy publishes the service, such as "
        "/trust; the proxy may strip it or keep it.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="IP addresses and networks of proxies, separated by commas, whose "
        "X-Forwarded-For header says which client a request comes from.",
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            wanted = {
                "int_parsing": "a whole number",
                "float_parsing": "a number",
                "bool_parsing": "true or false",
            }.get(first["type"], f"valid ({first['msg']})")
            if first["type"] == "string_pattern_mismatch":
                wanted = "auto, cpu, cuda, cuda:1 or mps"
            if first["type"] == "literal_error":
                wanted = first["ctx"]["expected"]
            if first["type"] == "less_than_equal":
                wanted = f"at most {first['ctx']['le']:g}"
            if first["type"] == "greater_than_equal":
                wanted = f"at least {first['ctx']['ge']:g}"
            raise InputError(
                f"Expected `{first['loc'][0]}` to be {wanted}, but got {first['input']}."
            ) from error
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

        _ = self.allowed_hosts, self.origins, self.proxies  # each says what is wrong with it
        if not re.fullmatch(r"(/[\w.~-]+)*", self.prefix, re.ASCII) or ".." in self.prefix:
            raise InputError(
                "Expected `root_path` to be a path of letters, digits, dots and hyphens, such as "
                f"/trust, but got {self.root_path!r}."
            )

    @property
    def allowed_hosts(self) -> AllowedHosts:
        """The names of `hosts`, and `host` where it is a name."""
        return AllowedHosts([*_split(self.hosts), *_split(self.host)])

    @property
    def origins(self) -> frozenset[str]:
        """The origins of `cors`, as browsers write them."""
        return read_origins(_split(self.cors))

    @property
    def proxies(self) -> list[str]:
        """The addresses and networks of `trusted_proxies`."""
        return read_networks(_split(self.trusted_proxies))

    @property
    def prefix(self) -> str:
        """`root_path` with a slash before it and none behind; "" for none."""
        path = self.root_path.strip("/")
        return f"/{path}" if path else ""

    def require_keys(self, keys: Keys) -> None:
        """Make sure that nobody lets everyone in without saying so.

        Raises
        ------
        InputError
            If there is no key, and other machines or pages of every site could ask.
        """
        reasons = {
            f"`host` {self.host} is reached from other machines": not is_loopback(self.host),
            "`cors` lets the pages of every site ask": "*" in self.origins,
            "`hosts` lets every name stand for the service": self.allowed_hosts.every,
        }
        if keys or self.no_auth or not any(reasons.values()):
            return
        raise InputError(
            f"Expected API keys, since {join_names([r for r, holds in reasons.items() if holds])}, "
            "but there are none. Put them into TRUSTVLM_SERVE_KEYS or a --keys-file, or say "
            "--no-auth if everyone may ask."
        )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


# API keys, from the environment or a file.

_MIN_KEY_LENGTH = 16


class Keys:
    """API keys, compared in constant time.

    Examples
    --------
    >>> keys = Keys(["a key of some length"])
    >>> keys.fit("a key of some length"), keys.fit("another"), keys.fit("")
    (True, False, False)
    """

    def __init__(self, keys: Collection[str]) -> None:
        self._digests = sorted({_digest(key) for key in keys})

    def __len__(self) -> int:
        return len(self._digests)

    def fit(self, offered: str) -> bool:
        """Whether this is one of the keys; every one is looked at, whichever fits."""
        digest = _digest(offered)
        return sum(hmac.compare_digest(key, digest) for key in self._digests) > 0

    def name(self, offered: str) -> str:
        """Return what tells keys apart and gives none away; "" where there are not several."""
        return _digest(offered).hex()[:16] if len(self) > 1 and self.fit(offered) else ""


def offered_key(headers: Mapping[str, str]) -> str:
    """Return the API key that comes with a request, by its headers in lower case; "" for none.

    Examples
    --------
    >>> offered_key({"authorization": "Bearer abc"}), offered_key({"x-api-key": "abc"})
    ('abc', 'abc')
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(file: str, environment: Mapping[str, str] = os.environ) -> Keys:
    """Read keys from `TRUSTVLM_SERVE_KEYS`, separated by commas, and from a file, one a line.

    Raises
    ------
    InputError
        If the file cannot be read, or a key is so short that it could be guessed.
    """
    keys = _split(environment.get("TRUSTVLM_SERVE_KEYS", ""))
    if file:
        try:
            lines = Path(file).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The file of API keys {file} cannot be read: {error}.") from error
        keys += [line.strip() for line in lines if line.strip()]
        if not keys:
            raise InputError(f"The file of API keys {file} holds none, one is expected a line.")
    if any(len(key) < _MIN_KEY_LENGTH for key in keys):
        raise InputError(
            f"Expected every API key to have at least {_MIN_KEY_LENGTH} characters, but one is "
            "shorter. Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return Keys(keys)
