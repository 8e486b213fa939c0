"""Programs as `__main__`: what goes in, what comes out, how they end."""

import dataclasses
import re
import threading
import time
from pathlib import Path

import pytest

from sharpen.sandbox import Limits, Sandbox, Status


def test_a_program_reads_its_input_and_its_output_comes_out(sandbox: Sandbox) -> None:
    source = "import sys\nn = int(input())\nprint(n * 2)\nprint('careful', file=sys.stderr)"
    result = sandbox.run(source, stdin="21\n")
    assert (result.status, result.exit_code, result.stdout, result.stderr) == (Status.OK, 0, b"42\n", b"careful\n")


def test_text_is_utf8_in_and_out(sandbox: Sandbox) -> None:
    assert sandbox.run("print(input()[::-1], 'é')", stdin="aß☃").stdout.decode() == "☃ßa é\n"


def test_a_program_is_main(sandbox: Sandbox) -> None:
    source = "if __name__ == '__main__':\n    import __main__\n    x = 3\n    print(__main__.x, __name__)"
    assert sandbox.run(source).stdout == b"3 __main__\n"


@pytest.mark.parametrize(
    ("source", "status", "code", "out", "err"),
    [
        ("import sys; print(1); sys.exit(0)", Status.OK, 0, b"1\n", b""),
        ("import sys; sys.exit(3)", Status.ERROR, 3, b"", b""),
        ("import sys; sys.exit('no')", Status.ERROR, 1, b"", b"no\n"),
        ("exit(4)", Status.ERROR, 4, b"", b""),
        ("import os; os._exit(5)", Status.ERROR, 5, b"", b""),
        ("import atexit; atexit.register(print, 'late'); print('early')", Status.OK, 0, b"early\nlate\n", b""),
        ("import threading; threading.Thread(target=print, args=(7,)).start()", Status.OK, 0, b"7\n", b""),
        ("import asyncio\nasync def f():\n    return 8\nprint(asyncio.run(f()))", Status.OK, 0, b"8\n", b""),
    ],
)
def test_programs_end_as_under_the_interpreter(
    sandbox: Sandbox, source: str, status: Status, code: int, out: bytes, err: bytes
) -> None:
    result = sandbox.run(source)
    assert (result.status, result.exit_code, result.stdout, result.stderr) == (status, code, out, err)


def test_a_traceback_shows_the_programs_lines_and_no_others(sandbox: Sandbox) -> None:
    result = sandbox.run("def f():\n    return 1 / 0\n\nf()\n")
    assert (result.status, result.exit_code) == (Status.ERROR, 1)
    lines = result.stderr.decode().splitlines()
    assert [line.strip() for line in lines if line.startswith("  File")] == [
        'File "program.py", line 4, in <module>',
        'File "program.py", line 2, in f',
    ]
    assert "return 1 / 0" in result.stderr.decode()
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_source_that_does_not_compile_is_an_error_of_the_program(sandbox: Sandbox) -> None:
    result = sandbox.run("def f(:")
    assert result.status is Status.ERROR
    assert b"SyntaxError" in result.stderr


def test_time_on_the_wall_ends_a_program(sandbox: Sandbox) -> None:
    result = sandbox.run("print(1, flush=True)\nimport time\ntime.sleep(60)", limits=Limits(wall_s=0.5))
    assert (result.status, result.exit_code, result.stdout) == (Status.TIMEOUT, None, b"1\n")
    assert 0.5 <= result.wall_s < 5


def test_time_on_the_processor_ends_a_program(sandbox: Sandbox) -> None:
    result = sandbox.run("while True: pass", limits=Limits(wall_s=60, cpu_s=1))
    assert result.status is Status.TIMEOUT
    assert 0.5 < result.cpu_s < 2
    assert result.wall_s < 50


def test_memory_ends_a_program(sandbox: Sandbox) -> None:
    limits = Limits(memory_bytes=128 << 20)
    assert sandbox.run("x = bytearray(32 << 20)", limits=limits).status is Status.OK
    result = sandbox.run("x = bytearray(256 << 20)", limits=limits)
    assert (result.status, result.exit_code) == (Status.MEMORY, 1)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_beyond_its_limit_ends_a_program_and_is_cut(sandbox: Sandbox, stream: str) -> None:
    limits = Limits(output_bytes=1000)
    assert sandbox.run(f"import sys; sys.{stream}.write('x' * 1000)", limits=limits).status is Status.OK
    result = sandbox.run(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)", limits=limits)
    assert result.status is Status.OUTPUT
    assert getattr(result, stream) == b"x" * 1000


def test_a_crash_is_told_with_its_signal(sandbox: Sandbox) -> None:
    result = sandbox.run("import ctypes; ctypes.string_at(0)")
    assert (result.status, result.exit_code, result.signal) == (Status.KILLED, None, 11)


def test_input_that_is_not_read_does_not_hold_a_program_up(sandbox: Sandbox) -> None:
    assert sandbox.run("print(1)", stdin=b"x" * (5 << 20)).stdout == b"1\n"


def test_much_input_is_read_whole(sandbox: Sandbox) -> None:
    result = sandbox.run("import sys; print(len(sys.stdin.read()))", stdin="y" * (5 << 20))
    assert result.stdout == f"{5 << 20}\n".encode()


def test_a_program_may_recurse_deep(sandbox: Sandbox) -> None:
    # Through a function in C, so that the depth is one of the stack.
    source = (
        "import functools, sys\nsys.setrecursionlimit(10**6)\n@functools.lru_cache(None)\n"
        "def f(n):\n    return 0 if n == 0 else f(n - 1) + 1\nprint(f(50000))"
    )
    assert sandbox.run(source).stdout == b"50000\n"


def test_a_program_has_a_few_threads_and_no_more(sandbox: Sandbox) -> None:
    source = (
        "import threading, time\ncount = 0\ntry:\n    for _ in range(1000):\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n        count += 1\n"
        "except RuntimeError:\n    pass\nprint(count)"
    )
    count = int(sandbox.run(source, limits=Limits(threads=8)).stdout)
    assert 8 <= count < 200


def test_files_can_be_written_up_to_a_limit(writing: Sandbox) -> None:
    limits = Limits(files_bytes=1 << 20, files=10)
    assert writing.run("open('a', 'w').write('x' * 500000); print(len(open('a').read()))", limits=limits).stdout == (
        b"500000\n"
    )
    assert (
        b"No space left"
        in writing.run("for n in range(9): open(str(n), 'wb').write(bytes(300000))", limits=limits).stderr
    )
    assert writing.run("for n in range(10): open(str(n), 'w')", limits=limits).status is Status.OK
    assert b"No space left" in writing.run("for n in range(11): open(str(n), 'w')", limits=limits).stderr


def test_nothing_that_one_program_writes_reaches_the_next(writing: Sandbox) -> None:
    assert writing.run("open('a', 'w').write('x')").status is Status.OK
    assert writing.run("import os; print(os.listdir('.'))").stdout == b"[]\n"


def test_two_programs_run_at_once(sandbox: Sandbox) -> None:
    sandbox.run("")
    started = time.monotonic()
    threads = [threading.Thread(target=sandbox.run, args=("import time; time.sleep(2)",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 4  # one after the other would take 6


def test_random_numbers_differ_between_programs(sandbox: Sandbox) -> None:
    source = "import os, random; print(random.random(), os.urandom(8))"
    assert len({sandbox.run(source).stdout for _ in range(5)}) == 5


@pytest.mark.parametrize(
    "wrong", [{"wall_s": 0}, {"memory_bytes": -1}, {"memory_bytes": 1.5}, {"cpu_s": float("nan")}, {"files": True}]
)
def test_a_limit_that_is_none_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type]


def test_the_page_of_the_docs_has_every_limit_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    said = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page.split("## Limits")[1].split("##")[0], re.MULTILINE))
    assert said.pop("Limits") == "default"  # the head of the table
    units = {"GiB": 1 << 30, "MiB": 1 << 20}
    assert list(said) == [field.name for field in dataclasses.fields(Limits)]
    for name, text in said.items():
        number, _, unit = text.partition(" ")
        assert getattr(Limits(), name) == (None if text == "none" else int(number) * units.get(unit, 1)), name
