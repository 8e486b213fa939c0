"""The guard refuses each kind of attack before the page behind it sees the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs sharpen[view]")

from sharpen.serving.guard import Guard
from sharpen.serving.requests import MOST_ADDRESS_BYTES, MOST_HEADER_BYTES, Served

TOKEN = "tokentokentoken"
HOST = ("host", "127.0.0.1:8765")


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


class Behind:
    """The page: says that it was reached, with headers that the guard has to replace."""

    reached = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached += 1
        headers = [(b"content-type", b"text/plain"), (b"Cache-Control", b"public"), (b"content-security-policy", b"")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"the page"})


def ask(
    guard: Guard,
    path: str = "/",
    *,
    query: str = "",
    headers: Sequence[tuple[str, str]] = (HOST,),
    method: str = "GET",
    kind: str = "http",
) -> Answer:
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    answer = Answer()

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            answer.body += message["body"]
        else:
            answer.status = message["code"]

    asyncio.run(guard(scope, receive, send))
    return answer


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def guard(behind: Behind) -> Guard:
    return Guard(behind, Served.at("127.0.0.1", 8765), TOKEN)


def cookie_of(guard: Guard) -> tuple[str, str]:
    set_cookie = ask(guard, query=f"token={TOKEN}").header("set-cookie")
    assert set_cookie is not None
    return "cookie", set_cookie.partition(";")[0]


def test_the_token_becomes_a_cookie_and_leaves_the_address(guard: Guard, behind: Behind) -> None:
    answer = ask(guard, query=f"token={TOKEN}")
    assert (answer.status, answer.header("location")) == (303, "/")
    cookie, *attributes = (answer.header("set-cookie") or "").split("; ")
    assert cookie.startswith("sharpen-8765=")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert TOKEN not in cookie
    assert behind.reached == 0
    reached = ask(guard, "/run/x", headers=(HOST, ("cookie", cookie)))
    assert (reached.status, reached.body, behind.reached) == (200, b"the page", 1)


@pytest.mark.parametrize(
    "query",
    ["", "token=", "token=wrong", f"token={TOKEN}x", f"token={TOKEN[:-1]}", f"token={TOKEN}&token=b", f"Token={TOKEN}"],
)
def test_without_the_token_nothing_is_shown(guard: Guard, behind: Behind, query: str) -> None:
    answer = ask(guard, query=query)
    assert (answer.status, behind.reached) == (401, 0)
    assert b"the command printed" in answer.body
    assert answer.header("set-cookie") is None
    assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize("path", ["/run/x", "/static/page.js", "//evil.example", "/run/x/events"])
def test_the_token_opens_no_other_address(guard: Guard, behind: Behind, path: str) -> None:
    answer = ask(guard, path, query=f"token={TOKEN}")
    assert (answer.status, answer.header("location"), behind.reached) == (401, None, 0)


def test_a_cookie_that_is_not_ours_opens_nothing(guard: Guard, behind: Behind) -> None:
    name, cookie = cookie_of(guard)
    for wrong in (f"{cookie}x", cookie[:-1], cookie.replace("8765", "8766"), f"sharpen-8765={TOKEN}", "\xff", "=;=;;"):
        assert ask(guard, "/x", headers=(HOST, (name, wrong))).status == 401, wrong
    assert behind.reached == 0
    # One that another server set beside it does not keep ours from being found.
    assert ask(guard, "/x", headers=(HOST, (name, f"sharpen-8765=theirs; a=b; {cookie}"))).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"])
def test_the_names_of_this_machine_are_answered(guard: Guard, host: str) -> None:
    assert ask(guard, headers=(("host", host), cookie_of(guard))).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1.evil.example:8765",
        "localhost:8765@evil.example",
        "127.0.0.1:8765:8765",
        "10.0.0.1:8765",
        "[::1]evil:8765",
        "",
    ],
)
def test_rebinding_a_foreign_name_to_this_machine(guard: Guard, behind: Behind, host: str) -> None:
    """Another site's name that leads here is refused, whatever token or cookie comes with it."""
    assert ask(guard, query=f"token={TOKEN}", headers=(("host", host),)).status == 403
    assert ask(guard, headers=(("host", host), cookie_of(guard))).status == 403
    assert behind.reached == 0


def test_two_hosts_or_none_are_refused(guard: Guard) -> None:
    cookie = cookie_of(guard)
    assert ask(guard, headers=(cookie,)).status == 403
    assert ask(guard, headers=(HOST, HOST, cookie)).status == 403


def test_on_all_interfaces_addresses_are_answered_but_no_foreign_names() -> None:
    served = Served.at("0.0.0.0", 80, ["Box", "box.lab"])
    for host in ("10.0.0.7:80", "10.0.0.7", "[fe80::1]:80", "box", "BOX.lab:80", "localhost"):
        assert served.has(host), host
    for host in ("evil.example", "box.lab.evil.example", "10.0.0.7:81", "10.0.0.7.evil.example"):
        assert not served.has(host), host
    assert Served.at("192.168.0.4", 9000).names == {"192.168.0.4"}


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:8765", "http://127.0.0.1:9999", "http://localhost:8765", ""],
)
def test_a_request_of_another_site_by_its_origin(guard: Guard, behind: Behind, origin: str) -> None:
    assert ask(guard, headers=(HOST, cookie_of(guard), ("origin", origin))).status == 403
    assert behind.reached == 0


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Same-Origin", ""])
@pytest.mark.parametrize(
    ("mode", "dest"),
    [("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe"), ("no-cors", "document"), ("navigate", "embed")],
)
def test_a_request_of_another_site_by_fetch_metadata(
    guard: Guard, behind: Behind, site: str, mode: str, dest: str
) -> None:
    headers = (HOST, cookie_of(guard), ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest))
    assert ask(guard, headers=headers).status == 403
    assert behind.reached == 0


@pytest.mark.parametrize("site", ["same-origin", "none", "cross-site"])
def test_a_link_may_be_followed(guard: Guard, site: str) -> None:
    fetched = (("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
    assert ask(guard, headers=(HOST, cookie_of(guard), *fetched)).status == 200


def test_our_own_requests_are_answered(guard: Guard) -> None:
    own = (("origin", "http://127.0.0.1:8765"), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"))
    assert ask(guard, headers=(HOST, cookie_of(guard), *own)).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_nothing_but_reading(guard: Guard, behind: Behind, method: str) -> None:
    answer = ask(guard, method=method, headers=(HOST, cookie_of(guard)))
    assert (answer.status, answer.header("allow"), behind.reached) == (405, "GET, HEAD", 0)


@pytest.mark.parametrize(
    "content", [("content-length", "5"), ("content-length", "0x0"), ("transfer-encoding", "chunked")]
)
def test_content_is_not_taken(guard: Guard, behind: Behind, content: tuple[str, str]) -> None:
    answer = ask(guard, headers=(HOST, cookie_of(guard), content))
    assert (answer.status, answer.header("connection"), behind.reached) == (413, "close", 0)


def test_huge_requests(guard: Guard, behind: Behind) -> None:
    cookie = cookie_of(guard)
    assert ask(guard, "/" + "a" * MOST_ADDRESS_BYTES, headers=(HOST, cookie)).status == 414
    assert ask(guard, query="a" * (MOST_ADDRESS_BYTES + 1), headers=(HOST, cookie)).status == 414
    assert ask(guard, headers=(HOST, cookie, ("x", "a" * MOST_HEADER_BYTES))).status == 431
    assert ask(guard, headers=(HOST, cookie, *[("x", "a")] * 200)).status == 431
    assert behind.reached == 0


def test_every_answer_forbids_what_is_not_the_page_s_own(guard: Guard) -> None:
    answers = [
        ask(guard, headers=(HOST, cookie_of(guard))),
        ask(guard),
        ask(guard, query=f"token={TOKEN}"),
        ask(guard, headers=()),
    ]
    assert [answer.status for answer in answers] == [200, 401, 303, 403]
    for answer in answers:
        policies = [value for name, value in answer.headers if name == "content-security-policy"]
        assert len(policies) == 1
        rules = dict(rule.split(" ", 1) for rule in policies[0].split("; "))
        assert rules == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "no-referrer"
        assert answer.header("cross-origin-opener-policy") == "same-origin"
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert [value for name, value in answer.headers if name == "cache-control"] == ["no-store"]


def test_a_web_socket_is_closed(guard: Guard, behind: Behind) -> None:
    assert ask(guard, kind="websocket", headers=(HOST, cookie_of(guard))).status == 1008
    assert behind.reached == 0
