"""The pages of a folder that a stranger filled: nothing of it is markup, a path or code, and nothing is written."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("fastapi", reason="needs sharpen[view]")

import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient

from sharpen.report.page.run_data import run_id
from sharpen.runs.samples import write_parquet
from sharpen.serving import folder as folder_module
from sharpen.serving.live import Live
from sharpen.serving.view import create_app

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><a href='javascript:alert(3)'>x</a>"
ESCAPES = "\x1b]0;title\x07\x1b[31m"
RIGHT_TO_LEFT = "\u202eabc\u2066"
HOSTILE = MARKUP + ESCAPES + RIGHT_TO_LEFT


def make_run(path: Path, *, steps: int = 3, **recipe: Any) -> Path:
    path.mkdir(parents=True)
    tree = {"method": {"name": "grpo"}, "model": {"path": "m"}, "training": {"steps": steps}, **recipe}
    (path / "recipe.yaml").write_text(yaml.safe_dump(tree, allow_unicode=False))
    rows = [{"step": step, "reward/mean": step / 4, "held_out/pass@1": step / 8} for step in range(1, steps + 1)]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def sample(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "prompt_id": "p",
        "prompt": "What is 1+1?",
        "completion": "2",
        "reward": 1.0,
        "error": None,
        "tokens": 1,
        "finish": "stop",
        "draw_id": 0,
        "policy_version": 0,
        **values,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def looked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "LOOK_AGAIN_S", -1.0)


def client(root: Path) -> TestClient:
    return TestClient(create_app(root))


class Parsed(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> Iterator[str]:
        for tag, attributes in self.tags:
            if tag in ("a", "link"):
                yield attributes["href"] or ""


def assert_only_ours(page: str) -> Parsed:
    """Scripts and links of ours alone, no listeners and styles in the markup, and nothing that a reader cannot see."""
    parsed = Parsed(page)
    for tag, attributes in parsed.tags:
        assert tag not in ("img", "iframe", "style", "object", "form", "base"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if tag == "script":
            assert (attributes["src"] or "").startswith("/static/")
    for link in parsed.links():
        assert link == "data:," or (link.startswith("/") and not link.startswith("//")), link
    assert not set("\x1b\x07\u202e\u2066") & set(page)
    return parsed


def test_the_list_says_how_each_run_is(root: Path) -> None:
    run = make_run(root / "one", steps=4)
    page = client(root).get("/")
    parsed = assert_only_ours(page.text)
    cells = [cell.strip() for cell in parsed.text.split("\n") if cell.strip()]
    at = cells.index("one")
    assert cells[at : at + 8] == ["one", "grpo", "finished", "4 of 4", "1", "pass@1", "12.5 %", "50.0 %"]
    assert f"/run/{run_id(run)}" in [*parsed.links()]
    points = next(attributes["points"] for tag, attributes in parsed.tags if tag == "polyline")
    # Four rewards that rise evenly: x from 0 to 120, y from the lower edge to the upper.
    assert points == "0.0,23.0 40.0,15.7 80.0,8.3 120.0,1.0"


def test_markup_in_every_field_that_the_list_and_the_page_show(root: Path) -> None:
    name = HOSTILE.replace("/", "_")
    steps = {"steps": HOSTILE}
    run = make_run(root / f"group {name}" / name, method={"name": HOSTILE}, model={"path": HOSTILE}, training=steps)
    broken = make_run(root / f"broken {name}")
    (broken / "recipe.yaml").write_text(f"a: &a 1\nb: *a # {MARKUP}\n")
    served = client(root)
    page = served.get("/")
    parsed = assert_only_ours(page.text)
    assert "<script>alert(1)<_script>" in parsed.text  # as text, and whole
    assert "\\x1b]0;title\\x07" in parsed.text
    assert "\\u202eabc\\u2066" in parsed.text
    for address in (f"/run/{run_id(run)}", f"/compare?run={run_id(run)}&run={run_id(broken)}"):
        page = served.get(address)
        assert page.status_code == 200
        assert_only_ours(page.text)
    data = served.get(f"/run/{run_id(run)}/data.json")
    assert data.headers["content-type"] == "application/json"
    assert data.json()["runs"][0]["glance"]["method"] == HOSTILE
    refused = served.get(f"/run/{run_id(broken)}/data.json")
    assert (refused.status_code, refused.headers["content-type"]) == (404, "text/plain; charset=utf-8")


def test_hostile_samples_are_json_and_a_long_line_is_cut(root: Path) -> None:
    run = make_run(root / "one")
    (run / "samples").mkdir()
    rows = [sample(1, prompt=HOSTILE, completion=HOSTILE, error=HOSTILE), sample(1, completion="x" * 1_000_000)]
    write_parquet(run / "samples" / "step_000001.parquet", rows)
    answer = client(root).get(f"/run/{run_id(run)}/chunk/training/1")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content.isascii()
    rows = [row for group in answer.json()["groups"] for row in group["rows"]]
    assert rows[0]["completion"] == rows[0]["error"] == HOSTILE
    assert rows[1]["cut"]
    assert len(rows[1]["completion"]) < 100_000


def test_a_line_of_a_megabyte_and_rows_that_lack_things(root: Path) -> None:
    """Neither keeps the other runs from being listed."""
    run = make_run(root / "one")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 4, "x" * 1_000_000: 1.0}) + "\n" + "y" * 1_000_000 + "\n")
    (make_run(root / "two") / "metrics.jsonl").write_text('{"step": 1, "tokens_per_s/rollout": 1, "reward/mean": 1}\n')
    make_run(root / "three")
    text = Parsed(client(root).get("/").text).text
    assert text.count("finished") + text.count("stopped") == 3
    for name in ("one", "two", "three"):
        assert client(root).get(f"/run/{run_id(root / name)}/data.json").status_code == 200, name


@pytest.mark.parametrize(
    "path",
    [
        "/static/../view.py",
        "/static/%2e%2e/view.py",
        "/static/%2e%2e%2fview.py",
        "/static/..%5cview.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/page.js%00",
        "/static/vendor/../page.js",
        "/static/",
        "/run/..",
        "/run/%2e%2e/data.json",
        "/run/../../secret/data.json",
        "/run/%00/data.json",
        "/run//etc/data.json",
        "/run/ID/chunk/../../../secret",
        "/run/ID/chunk/training/..%2f..%2fsecret",
        "/run/ID/chunk/training/1%00",
        "/run/ID/chunk/training/-1",
        "/run/ID/chunk//etc/passwd",
        "/run/ID/chunk/recipe.yaml",
        "/run/ID/chunk/",
        "/compare?run=..%2f..%2fsecret",
        "/compare?run=ID&run=../secret",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_path_of_a_request_reaches_the_files(root: Path, path: str) -> None:
    make_run(root.parent / "secret", method={"name": "the-secret"})
    run = make_run(root / "one")
    answer = raw(create_app(root), path.replace("ID", run_id(run)))
    assert answer[0] in (404, 422), answer
    assert b"secret" not in answer[1].replace(b"../secret", b"")
    assert b"root:" not in answer[1]


def raw(app: FastAPI, target: str) -> tuple[int, bytes]:
    """What a server hands on of a target as it stands in a request: no client makes it tidy first."""
    path, _, query = target.partition("?")
    status, body = 0, b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [],
    }
    asyncio.run(app(scope, receive, send))
    return status, body


def test_links_out_of_the_folder_are_not_followed(root: Path) -> None:
    secret = make_run(root.parent / "secret", method={"name": "the-secret"})
    (secret / "samples").mkdir()
    write_parquet(secret / "samples" / "step_000001.parquet", [sample(1, completion="the-secret")])
    (root / "whole").symlink_to(secret)
    names = []
    for name in ("recipe.yaml", "metrics.jsonl", "samples", "changes.jsonl", "lock"):
        run = make_run(root / f"with {name}")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret / name)
        names.append(run)
    inner = make_run(root / "inner")
    (inner / "samples").mkdir()
    (inner / "samples" / "step_000001.parquet").symlink_to(secret / "samples" / "step_000001.parquet")
    pipe = make_run(root / "pipe")
    (pipe / "metrics.jsonl").unlink()
    os.mkfifo(pipe / "metrics.jsonl")
    good = make_run(root / "good")
    (root / "inside").symlink_to(good)
    served = client(root)
    page = served.get("/").text
    assert "the-secret" not in page
    assert [link for link in Parsed(page).links() if link.startswith("/run/")] == [f"/run/{run_id(good)}"]
    assert page.count("is not shown") == 7
    for run in (secret, inner, pipe, *names):
        assert served.get(f"/run/{run_id(run)}/data.json").status_code == 404


def test_a_run_that_becomes_a_link_is_gone_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = make_run(root.parent / "secret", method={"name": "the-secret"})
    run = make_run(root / "one")
    served = client(root)
    address = f"/run/{run_id(run)}/data.json"
    assert served.get(address).status_code == 200
    # Between two walks through the folder, too.
    monkeypatch.setattr(folder_module, "LOOK_AGAIN_S", 3600.0)
    (run / "recipe.yaml").unlink()
    (run / "recipe.yaml").symlink_to(secret / "recipe.yaml")
    assert served.get(address).status_code == 404


def test_the_walk_has_an_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(root / "a" / "b" / "c" / "d" / "e")
    make_run(root / "1" / "2" / "3" / "4" / "5" / "deep")
    page = client(root).get("/").text
    assert "a/b/c/d/e" in page
    assert "deep" not in page
    monkeypatch.setattr(folder_module, "MOST_FOLDERS", 4)
    assert "Only the first 4 folders" in client(root).get("/").text
    monkeypatch.setattr(folder_module, "MOST_FOLDERS", 100)
    monkeypatch.setattr(folder_module, "MOST_RUNS", 1)
    for number in range(3):
        make_run(root / f"run{number}")
    page = client(root).get("/").text
    assert "Only the first 1 runs" in page
    assert len([link for link in Parsed(page).links() if link.startswith("/run/")]) == 1


def test_a_run_s_own_folder_is_shown_and_seeds_are_a_group(root: Path) -> None:
    run = make_run(root / "one")
    assert f"/run/{run_id(run)}" in client(run).get("/").text
    seeds = [make_run(root / "seeds" / f"seed_{seed}") for seed in (1, 2)]
    (root / "seeds" / "seeds.yaml").write_text("method: {name: grpo}\n")
    page = client(root).get("/").text
    assert "seeds of one recipe" in page
    query = "&".join(f"run={run_id(seed)}" for seed in seeds)
    data = client(root).get(f"/compare/data.json?{query}").json()
    assert data["seeds"]
    assert data["live"]
    assert [one["name"] for one in data["runs"]] == ["seeds/seed_1", "seeds/seed_2"]
    mixed = client(root).get(f"/compare/data.json?{query}&run={run_id(run)}").json()
    assert not mixed["seeds"]


def test_nothing_is_written_and_no_code_of_a_run_is_imported(root: Path) -> None:
    code = root / "one" / "evil_reward_of_test.py"
    run = make_run(root / "one", reward=f"{code}:f", method={"name": f"{code}:M"})
    code.write_text(f"open({str(root / 'was_run')!r}, 'w')\ndef f(completion): return 1\n")
    (run / "samples").mkdir()
    write_parquet(run / "samples" / "step_000001.parquet", [sample(1)])

    def state() -> dict[str, tuple[int, int]]:
        found = {str(path): path.stat() for path in root.rglob("*")}
        return {name: (status.st_mtime_ns, status.st_size) for name, status in found.items()}

    before = state()
    served = client(root)
    address = f"/run/{run_id(run)}"
    for path in ("/", address, f"{address}/data.json", f"{address}/chunk/training/1", f"{address}/chunk/prompts"):
        assert served.get(path).status_code == 200, path
    assert state() == before
    assert not any("evil_reward_of_test" in name for name in sys.modules)


def test_every_script_and_style_that_a_page_names_is_there(root: Path) -> None:
    run = make_run(root / "one")
    served = client(root)
    for page in ("/", f"/run/{run_id(run)}"):
        for tag, attributes in Parsed(served.get(page).text).tags:
            name = attributes.get("src") or (attributes["href"] if tag == "link" else None)
            if name and name != "data:,":
                answer = served.get(name)
                assert answer.status_code == 200, name
                kind = "javascript" if tag == "script" else "css"
                assert answer.headers["content-type"] == f"text/{kind}; charset=utf-8"


def test_only_so_many_streams(root: Path) -> None:
    live = Live(lambda run: True, lambda: False, most=2)
    runs = [*folder_module.ServedFolder(make_run(root / "one")).look().runs.values()]

    async def ask(gone: asyncio.Event) -> list[int]:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await live.response(runs)(scope, receive, send)
        return statuses

    async def three() -> list[list[int]]:
        gone = asyncio.Event()
        open_ones = [asyncio.create_task(ask(gone)) for _ in range(2)]
        await asyncio.sleep(0.3)
        refused = await ask(gone)
        assert live.streams == 2
        gone.set()
        ended = [await asyncio.wait_for(one, 5) for one in open_ones]
        # Both have gone: their places are free, and the run is not followed any more.
        assert live.streams == 0
        assert live._followed == {}
        return [refused, *ended]

    assert asyncio.run(three()) == [[503], [200], [200]]
