"""The battery finds what gets through without isolation, and finds nothing where the sandbox holds."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from battery import ALL, MORE
from host import interpreter_for_nobody, make_readable, run_as_nobody

from sharpen.sandbox import Limits, Sandbox
from sharpen.sandbox.battery import PROGRAMS, Attack, attacks, check_sandbox
from sharpen.sandbox.battery.grading import passes

BATTERY = Path(__file__).with_name("battery")
PATIENT = "running on"
"""The group whose programs all use their whole time."""
SAMPLE = [*PROGRAMS, *[a for a in MORE if a.group != PATIENT][::5], *[a for a in MORE if a.group == PATIENT][::9]]
"""All programs of the package, and some of the others."""
LIMITS = Limits(
    wall_s=1, cpu_s=1, memory_bytes=256 << 20, output_bytes=1 << 20, files_bytes=4 << 20, files=100, threads=16
)


def test_it_is_as_large_as_it_says() -> None:
    assert len([a for a in ALL if not a.group.startswith("forged")]) >= 260
    assert len([a for a in ALL if a.group.startswith("forged")]) >= 78
    names = Counter((attack.group, attack.name) for attack in ALL)
    assert max(names.values()) == 1


def test_the_package_has_programs_of_every_group() -> None:
    assert {attack.group for attack in PROGRAMS} == {attack.group for attack in ALL}


def test_every_program_of_a_text_becomes_an_attack() -> None:
    found = list(attacks("g", "#: one (harmless)\na = 1\n#: two\n# a comment\nb = 2\n"))
    assert found == [
        Attack("g", "one", "a = 1\n", is_harmless=True),
        Attack("g", "two", "# a comment\nb = 2\n", is_harmless=False),
    ]


@pytest.mark.parametrize("attack", ALL, ids=lambda a: f"{a.group}: {a.name}")
def test_every_hostile_program_is_python(attack: Attack) -> None:
    if attack.name != "source that does not compile":
        compile(attack.source, attack.name, "exec")


def test_nothing_of_a_sample_gets_through(sandbox: Sandbox) -> None:
    report = check_sandbox(sandbox, SAMPLE, limits=LIMITS)
    assert len(report.findings) == len(SAMPLE)
    assert [(finding.attack.name, finding.through) for finding in report.got_through] == []


@pytest.mark.parametrize("level", ["namespaces", "landlock"])
def test_nothing_of_it_gets_through_for_an_ordinary_user(level: str, alone: Path) -> None:
    python = interpreter_for_nobody()
    if python is None or os.getuid() != 0:
        pytest.skip("needs root, and a Python that other users can start")
    shutil.copytree(BATTERY, alone / "battery", ignore=shutil.ignore_patterns("__pycache__"))
    make_readable(alone)
    done = run_as_nobody(
        python,
        alone,
        f"""
        from battery import ALL
        from sharpen.sandbox import Sandbox
        from sharpen.sandbox.battery import check_sandbox
        with Sandbox({level!r}) as sandbox:
            programs = [a for a in ALL if a.group != {PATIENT!r}][1::4]
            report = check_sandbox(sandbox, programs)
            print(len(report.findings) == len(programs), report.got_through)
        """,
    )
    assert done.stdout == "True ()\n", (done.stdout, done.stderr)


THROUGH = {
    "fork": "it says: forked",
    "os.system": "it says: a shell was started",
    "a file that anyone may read": "the secret came out of the program",
    "the environment of another process of the user": "the secret came out of the program",
    "a file": "outside its folder it changed left",
    "a file emptied": "outside its folder it changed kept",
    "a file's mode": "outside its folder it changed kept",
    "TCP": "a connection: TCP",
    "UDP": "a datagram: UDP",
    "a unix socket": "a connection: unix socket",
    "an abstract unix socket": "a connection: abstract socket",
    "the end of another process of the user": "the other process is in state Z",
    "stopping another process of the user": "the other process is in state T",
}


def test_without_isolation_the_battery_finds_what_gets_through() -> None:
    chosen = [attack for attack in PROGRAMS if attack.name in THROUGH]
    with Sandbox("none", unsafe=True) as sandbox:
        report = check_sandbox(sandbox, chosen)
    assert {finding.attack.name: finding.through[0] for finding in report.got_through} == THROUGH


def test_what_outlives_its_job_is_found() -> None:
    # It closes what it writes to, leaves the group of its job, and would go on for a minute.
    source = (
        "if os.fork() == 0:\n    os.setsid()\n    os.closerange(0, 100)\n"
        "    import time\n    time.sleep(60)\n    os._exit(0)\nimport time\ntime.sleep(0.3)\n"
    )
    with Sandbox("none", unsafe=True) as sandbox:
        report = check_sandbox(sandbox, [Attack("g", "daemon", source, is_harmless=True)])
    assert [finding.through for finding in report.findings] == [("1 processes were left",)]


def test_a_program_that_never_began_does_not_count_as_stopped(sandbox: Sandbox) -> None:
    (finding,) = check_sandbox(sandbox, [Attack("g", "typo", "def f(:\n", is_harmless=True)]).findings
    assert "never began" in finding.through[0]


def test_a_forged_solution_that_is_right_after_all_is_found(sandbox: Sandbox) -> None:
    right = Attack("forged calls", "right", "def total(numbers):\n    return sum(numbers)\n", is_harmless=True)
    assert passes(sandbox, right, LIMITS)
    (finding,) = check_sandbox(sandbox, [right]).findings
    assert finding.through == ("it was counted as right",)


def test_the_command_for_all_programs_starts() -> None:
    done = subprocess.run(
        [sys.executable, str(BATTERY), "--isolation", "none"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "--unsafe" in done.stderr
