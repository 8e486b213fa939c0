"""What stands before every page that sharpen serves, and knows nothing of what the page shows.

Whoever opens the page for the first time has a random token in the address, as the command printed it. It is exchanged
for a cookie, and the address is left without it. Requests without the cookie, by other sites' pages, to other names or
with content are refused, and every answer forbids the browser to run or load anything that is not the page's own.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from sharpen.serving.requests import Refusal, Served, refusal, values

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Of every answer. The policy is also what makes a browser show a text that looks like a script, and not run it."""

NO_ENTRY = (
    "This page opens with the address that the command printed in the terminal when it started: it ends in ?token=…"
)


class Guard:
    """An ASGI app that answers for ``app`` where a request may pass.

    ``token`` is what the address must have at first; the cookie holds another secret, so that neither tells the other.
    """

    def __init__(self, app: App, served: Served, token: str) -> None:
        self._app, self._served, self._token = app, served, token
        self._cookie = secrets.token_urlsafe(32)
        # Browsers send cookies to every port of a host; with the port in the name, two servers keep theirs.
        self._cookie_name = f"sharpen-{served.port}"

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = refusal(scope, self._served)
        if refused is not None:
            await _answer(send, scope, refused.status, _page(refused))
            return
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if scope["path"] == "/" and given is not None:
            await self._exchange(given, scope, send)
        elif self._knows(scope["headers"]):
            await self._app(scope, receive, _guarded(send))
        else:
            await _answer(send, scope, 401, _page(Refusal(401, NO_ENTRY), again=True))

    async def _exchange(self, given: list[str], scope: Any, send: Send) -> None:
        if len(given) != 1 or not _equal(given[0], self._token):
            await _answer(send, scope, 401, _page(Refusal(401, f"The token is not that of this server. {NO_ENTRY}")))
            return
        cookie = f"{self._cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await _answer(send, scope, 303, b"", headers)

    def _knows(self, headers: list[tuple[bytes, bytes]]) -> bool:
        pairs = (pair.strip().partition("=") for line in values(headers, b"cookie") for pair in line.split(";"))
        # Not the first one alone: another server of this host can set a cookie of this name.
        given = [value for name, _, value in pairs if name == self._cookie_name]
        return any(_equal(value, self._cookie) for value in given)


def _equal(given: str, secret: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def _guarded(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name, value) for name, value in message.get("headers", []) if name.lower() not in HEADERS]
            message = {**message, "headers": [*own, *HEADERS.items()]}
        await send(message)

    return guarded


async def _answer(
    send: Send, scope: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    # Closed after a refusal: content that nobody read would stand before the next request.
    length = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    allowed = [(b"allow", b"GET, HEAD")] if status == 405 else []
    closing = [(b"connection", b"close")] if status >= 400 else []
    every = [*length, *allowed, *closing, *(headers or []), *HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _page(refused: Refusal, again: bool = False) -> bytes:
    # After a link from another site, a browser keeps the new cookie back until somebody goes on from a page of ours.
    link = '<p><a href="/">I came by a link with the token: open the page</a></p>' if again else ""
    text = html.escape(refused.reason)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{refused.status}</title></head>'
        f"<body><h1>{refused.status}</h1><p>{text}</p>{link}</body></html>"
    ).encode()
