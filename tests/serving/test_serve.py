"""The command as a user starts it: a process, a port, an address, an end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path

import pytest
import yaml

from served import Served, served
from tiny_runs import reward_file, tiny_start_model, tiny_tree

pytest.importorskip("fastapi", reason="needs sharpen[view]")
pytest.importorskip("uvicorn", reason="needs sharpen[view]")

from sharpen.errors import RecipeError
from sharpen.report.page.run_data import run_id
from sharpen.serving import serve as serve_module
from sharpen.serving.serve import _listening
from sharpen.serving.view import create_app


def make_run(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text("method: {name: grpo}\nmodel: {path: m}\ntraining: {steps: 4}\n")
    (path / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5, "reward/std": 0.1}\n')
    return path


def test_the_command_from_its_start_to_ctrl_c(tmp_path: Path) -> None:
    """One process for all of it, since each takes seconds to start."""
    run = make_run(tmp_path / "runs" / "one")
    secret = tmp_path / "secret.txt"
    secret.write_text("the-secret")
    with served(cwd=tmp_path) as server:  # `runs` is what it shows by default
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", server.address)
        assert server.get("/").status == 401
        assert server.get("/?token=wrong").status == 401
        server.enter()
        assert b"/run/" in server.get("/").read()
        assert server.get("/", {"Host": f"evil.example:{server.port}"}).status == 403
        assert server.get("/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status == 403
        for path in ("/static/../../../../secret.txt", "/../secret.txt", "//etc/passwd", "/static/%00", "/%2e%2e/"):
            answer = server.get(path)
            assert answer.status == 404, path
            assert b"the-secret" not in answer.read()
        for request, statuses in HUGE.items():
            assert status_of_raw(server, request) in statuses, request[:40]
        assert server.get("/run/x").status == 404
        # Still there after all of this, for whoever may come in.
        stream = server.get(f"/run/{run_id(run)}/events")
        assert stream.status == 200
        assert first_event(stream) == "rows"
        started_s = time.monotonic()
        assert server.stopped(signal.SIGINT) == 130
        assert time.monotonic() - started_s < 10
    said = "".join(server.said)
    # Once, in the address for the user; no request is logged.
    assert said.count("token=") == 1
    assert "GET" not in said
    assert "Traceback" not in said


HUGE = {
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n": (400, 414),
    b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n": (400, 431),
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 99999999999\r\n\r\n": (413,),
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 5\r\n\r\nhello": (405,),
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n": (413,),
    b"\x00\xff\r\n\r\n": (400,),
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n": (403,),
}


def status_of_raw(server: Served, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # answered before it had all of it
            connection.sendall(request.replace(b"PORT", str(server.port).encode()))
        return int(connection.recv(100).split()[1])


def first_event(stream: HTTPResponse) -> str:
    while line := stream.readline().decode():
        if line.startswith("event: "):
            return line.removeprefix("event: ").strip()
    raise AssertionError("the stream ended")


def test_two_servers_side_by_side(tmp_path: Path) -> None:
    """Each has a port and a cookie of its own; what opens the one does not open the other."""
    one, other = make_run(tmp_path / "a" / "one"), make_run(tmp_path / "b" / "other")
    with served(one.parent, cwd=tmp_path) as first, served(other, cwd=tmp_path) as second:
        assert first.port != second.port
        first.enter()
        second.enter()
        assert first.cookie.partition("=")[0] != second.cookie.partition("=")[0]
        cookies = {"Cookie": f"{first.cookie}; {second.cookie}"}  # a browser sends both to either
        assert f"/run/{run_id(one)}".encode() in first.get("/", cookies).read()
        assert f"/run/{run_id(other)}".encode() in second.get("/", cookies).read()
        renamed = first.cookie.replace(str(first.port), str(second.port))
        assert second.get("/", {"Cookie": renamed}).status == 401
        token = first.address.partition("token=")[2]
        assert second.get(f"/?token={token}").status == 401
        assert first.stopped(signal.SIGTERM) == 143
        assert second.stopped(signal.SIGHUP) == 129


def test_rows_arrive_while_a_run_trains(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    reward = reward_file(tmp_path / "reward.py", pause_s=0.02)
    recipe = tmp_path / "recipe.yaml"
    tree = tiny_tree(run, tiny_start_model(tmp_path / "model"), "grpo", reward=reward, training={"steps": 8})
    recipe.write_text(yaml.safe_dump(tree))
    run.parent.mkdir()
    program = "import sys; from sharpen.cli.app import main; sys.argv[0] = 'sharpen'; main()"
    with served(run.parent, cwd=tmp_path) as server:
        server.enter()
        assert b"There is no run in this folder yet" in server.get("/").read()
        training = subprocess.Popen([sys.executable, "-c", program, "run", str(recipe), "--quiet"], cwd=tmp_path)
        try:
            wait_for(run / "recipe.yaml")
            steps, last_status = follow(server, run, until_step=8)
        finally:
            training.wait(120)
    assert training.returncode == 0
    # In more than one part, and each step once: it was followed, not read when it was over.
    assert [step for part in steps for step in part] == [*range(9)]
    assert len(steps) > 1
    assert last_status == "finished"


def wait_for(file: Path, within_s: float = 90.0) -> None:
    end_s = time.monotonic() + within_s
    while not file.exists():
        assert time.monotonic() < end_s, f"{file} did not come"
        time.sleep(0.05)
    time.sleep(2.2)  # the folder is not walked more often than every two seconds


def follow(server: Served, run: Path, *, until_step: int) -> tuple[list[list[int]], str]:
    """The steps of each part that arrived, and the last status that the page was told."""
    stream = server.get(f"/run/{run_id(run)}/events", timeout_s=90)
    assert stream.getheader("content-type", "").startswith("text/event-stream")
    parts: list[list[int]] = []
    status, name = "", ""
    while line := stream.readline().decode():
        if line.startswith("event: "):
            name = line.removeprefix("event: ").strip()
        elif line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
            if name == "rows" and data["series"]["step"]:
                parts.append(data["series"]["step"])
            elif name == "page":
                status = data["status"]
                if status == "finished" and parts and parts[-1][-1] == until_step:
                    break
    return parts, status


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RecipeError, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use"):
            _listening("127.0.0.1", port)
        monkeypatch.setattr("sharpen.serving.serve.PORT", port)
        with _listening("127.0.0.1", None) as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(RecipeError, match=f"cannot listen on {host}"):
        _listening(host, None)


def test_who_can_reach_it_is_said_where_it_is_not_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module._Server, "run", lambda self, sockets: None)
    opened: list[str] = []
    monkeypatch.setattr(serve_module.webbrowser, "open", opened.append)
    for host, warned in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        said: list[str] = []
        warnings: list[str] = []
        serve_module.serve(
            create_app(tmp_path),
            ending=threading.Event(),
            host=host,
            open_browser=warned,
            say=said.append,
            warn=warnings.append,
        )
        assert bool(warnings) == warned, host
        assert "0.0.0.0" not in said[0]
        assert opened == (said if warned else [])


def test_a_slow_request_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A file that takes long to read, read in a thread: the process ends all the same."""
    program = f"""
import time
from sharpen.serving import serve, view
serve.KILL_AFTER_S = 3.0
view.ServedFolder.look = lambda self: time.sleep(600)
from sharpen.cli.view import view_runs
view_runs(__import__("pathlib").Path({str(tmp_path)!r}), host="127.0.0.1", port=None, open_browser=False)
"""
    process = subprocess.Popen([sys.executable, "-u", "-c", program], text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        server = Served(process, address)
        server.enter()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n\r\n"
            connection.sendall(request.encode())
            time.sleep(1)
            assert server.stopped(signal.SIGINT) == 130
    finally:
        process.kill()
