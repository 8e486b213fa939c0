"""Which requests a page on this machine answers at all: whatever else asks is refused before the page sees it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Scope = Mapping[str, Any]
"""A request as ASGI describes it."""

MOST_ADDRESS_BYTES = 4_096
MOST_HEADER_BYTES = 16_384
MOST_HEADERS = 100

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Served:
    """The names under which a server is reached, as they stand in an address. ``any_address``: by number, too.

    A page of another site can have its own name lead to this machine (DNS rebinding), but not a bare address.
    """

    names: frozenset[str]
    port: int
    any_address: bool = False

    @classmethod
    def at(cls, host: str, port: int, machine: Iterable[str] = ()) -> Served:
        """What a server on ``host`` answers to; ``machine`` has this machine's names, for one on all interfaces."""
        name = f"[{host}]" if ":" in host else host
        everywhere = host in EVERYWHERE
        if everywhere:
            names = {*LOOPBACK, *(one.lower() for one in machine)}
        else:
            names = {*LOOPBACK} if name in LOOPBACK else {name.lower()}
        return cls(frozenset(names), port, any_address=everywhere)

    def has(self, host: str) -> bool:
        """Whether a ``Host`` header names this server."""
        name, port = _split(host.lower())
        if port != str(self.port) and not (port == "" and self.port == 80):
            return False
        return name in self.names or (self.any_address and _is_address(name))


def refusal(scope: Scope, served: Served) -> Refusal | None:
    """Why a request is not answered, whoever sent it; None for one that a page of ours, or a person, may send."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_ADDRESS_BYTES:
        return Refusal(414, "The address is too long.")
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > MOST_HEADER_BYTES:
        return Refusal(431, "The headers are too large.")
    hosts = values(headers, b"host")
    if len(hosts) != 1 or not served.has(hosts[0]):
        return Refusal(403, "This server does not go by that name.")
    if scope["method"] not in ("GET", "HEAD"):
        return Refusal(405, "This page can only be read.")
    if values(headers, b"transfer-encoding") or any(
        length.strip() != "0" for length in values(headers, b"content-length")
    ):
        return Refusal(413, "No content is taken.")
    if any(origin != f"http://{hosts[0]}" for origin in values(headers, b"origin")):
        return Refusal(403, "Another site's page asked for this.")
    sites = values(headers, b"sec-fetch-site")
    if any(site not in ("same-origin", "none") for site in sites) and not _is_navigation(headers):
        return Refusal(403, "Another site's page asked for this.")
    return None


def values(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    """All values of a header; ``wanted`` in lower case, as ASGI has the names."""
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _is_navigation(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether somebody followed a link to here, in a window of its own: the page that has the link learns nothing."""
    return values(headers, b"sec-fetch-mode") == ["navigate"] and values(headers, b"sec-fetch-dest") == ["document"]


def _split(host: str) -> tuple[str, str]:
    if host.startswith("["):
        name, _, rest = host.partition("]")
        return f"{name}]", rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
