"""Under which names the service answers, and pages of which origins may change anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from trustvlm.exceptions import InputError

# The port is left away where it is the usual one of the scheme.
_USUAL_PORTS = {"http": 80, "https": 443}
_LOCALHOST = "localhost"
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::(\d{0,5}))?")
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class Host(NamedTuple):
    """A `Host` header: the name without brackets or a last dot, in lower case, and the port."""

    name: str
    port: int | None


class Origin(NamedTuple):
    """An `Origin` header; the port is a number also where it is the scheme's usual one."""

    scheme: str
    name: str
    port: int

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        usual = self.port == _USUAL_PORTS[self.scheme]
        return f"{self.scheme}://{name}" + ("" if usual else f":{self.port}")

    def is_of(self, host: Host | None) -> bool:
        """Whether it is a page of this host; both proxies and browsers leave out usual ports."""
        usual = _USUAL_PORTS[self.scheme]
        return host is not None and (host.name, host.port or usual) == (self.name, self.port)


def parse_host(text: str) -> Host | None:
    """Read a `Host` header; None if it is no host.

    Examples
    --------
    >>> parse_host("LOCALHOST.:8000"), parse_host("[::1]")
    (Host(name='localhost', port=8000), Host(name='::1', port=None))
    >>> parse_host("http://localhost/"), parse_host("")
    (None, None)
    """
    match = _AUTHORITY.fullmatch(text.strip().lower())
    if match is None:
        return None
    return Host(_ascii(match[1].strip("[]").removesuffix(".")), int(match[2]) if match[2] else None)


def parse_origin(text: str) -> Origin | None:
    """Read an `Origin` header; None if it is none of a web page, as `null` is.

    Examples
    --------
    >>> parse_origin("https://Pets.example.org:443")
    Origin(scheme='https', name='pets.example.org', port=443)
    >>> str(parse_origin("https://pets.example.org")), parse_origin("null")
    ('https://pets.example.org', None)
    """
    scheme, separator, authority = text.strip().lower().partition("://")
    host = parse_host(authority)
    if not separator or scheme not in _USUAL_PORTS or host is None:
        return None
    return Origin(scheme, host.name, host.port or _USUAL_PORTS[scheme])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("pets.example.org")
    (True, False, False)
    """
    name = host.strip("[]").lower()
    try:
        address = ip_address(name)
    except ValueError:
        return name == _LOCALHOST
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class AllowedHosts:
    """Names under which the service answers.

    A page of another site can give its own name the address of the service, and the browser then
    takes both for one site (DNS rebinding). It can do so with no IP address and not with
    `localhost`, so these are always answered; every other name has to be listed.

    Parameters
    ----------
    names
        Host names; `*.example.org` stands for every name below `example.org`, and `*` for all.

    Raises
    ------
    InputError
        If one is no host name.

    Examples
    --------
    >>> hosts = AllowedHosts(["pets.example.org", "*.internal"])
    >>> [hosts.answer(parse_host(h)) for h in ("pets.example.org:80", "a.b.internal", "10.0.0.7")]
    [True, True, True]
    >>> hosts.answer(parse_host("example.org")), hosts.answer(parse_host("internal"))
    (False, False)
    """

    def __init__(self, names: Iterable[str]) -> None:
        listed = [_ascii(name.lower().removesuffix(".")) for name in names]
        self.every = "*" in listed
        for name in listed:
            if name != "*" and not _is_address(name) and not _NAME.fullmatch(name):
                raise InputError(
                    "Expected `hosts` to be names without scheme, port or path, such as "
                    f"pets.example.org or *.example.org, but got {name!r}."
                )
        self._names = {_LOCALHOST, *listed}
        self._endings = tuple(name[1:] for name in listed if name.startswith("*."))

    def answer(self, host: Host | None) -> bool:
        """Whether the service answers under this name."""
        if self.every:
            return True
        if host is None:
            return False
        return (
            host.name in self._names or host.name.endswith(self._endings) or _is_address(host.name)
        )


def read_origins(origins: Iterable[str]) -> frozenset[str]:
    """Return origins as browsers write them; `*` stays.

    Raises
    ------
    InputError
        If one is no origin.

    Examples
    --------
    >>> sorted(read_origins(["https://Pets.example.org:443/", "http://localhost:3000"]))
    ['http://localhost:3000', 'https://pets.example.org']
    """
    read = set()
    for text in origins:
        origin = parse_origin(text.rstrip("/"))
        if origin is None and text != "*":
            raise InputError(
                "Expected `cors` to be origins, such as https://pets.example.org, but got "
                f"{text!r}."
            )
        read.add(text if origin is None else str(origin))
    return frozenset(read)


def read_networks(texts: Iterable[str]) -> list[str]:
    """Return IP addresses and networks as they are given, or say which of them is none.

    Raises
    ------
    InputError
        If one is no address or network, or every address is in it.

    Examples
    --------
    >>> read_networks(["10.0.0.7", "172.16.0.0/12"])
    ['10.0.0.7', '172.16.0.0/12']
    """
    read = list(texts)
    for text in read:
        try:
            valid = ip_network(text).prefixlen > 0
        except ValueError:
            valid = False
        if not valid:
            raise InputError(
                "Expected `trusted_proxies` to be IP addresses or networks, such as 10.0.0.7 or "
                f"172.16.0.0/12, but got {text!r}. Whoever is trusted can pass for any client."
            )
    return read


def network_of(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or a network of IPv6 addresses.

    Examples
    --------
    >>> network_of("192.0.2.7"), network_of("2001:db8::7"), network_of("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8::/64', '192.0.2.7')
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    address = getattr(address, "ipv4_mapped", None) or address
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))


def is_foreign(
    origin: str | None, host: Host | None, fetch_site: str, allowed: frozenset[str]
) -> bool:
    """Whether a request comes from a page of another origin that was not allowed.

    A request without `Origin` that changes something is not from a browser of today. One of
    another scheme, which the host does not show, is shown by `Sec-Fetch-Site` where that is sent.

    Examples
    --------
    >>> own = parse_host("pets.example.org:8000")
    >>> is_foreign("http://pets.example.org:8000", own, "", frozenset())
    False
    >>> is_foreign("http://pets.example.org:9000", own, "", frozenset())
    True
    """
    if "*" in allowed:
        return False
    parsed = None if origin is None else parse_origin(origin)
    if parsed is not None and str(parsed) in allowed:
        return False
    other = origin is not None and (parsed is None or not parsed.is_of(host))
    return other or fetch_site in ("cross-site", "same-site")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _ascii(name: str) -> str:
    """Return a name as it goes over the wire, `bücher.example` as `xn--bcher-kva.example`."""
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name
