"""The hostile programs and forged solutions at four levels: as root and as an ordinary user, with two isolations."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

from batteries.part import Outcome

TREE = Path(__file__).parents[2]
NOBODY = 65534
_NOT_HERE = "this machine cannot isolate programs"
TIMEOUT_S = 900.0
_VERDICT = re.compile(r"(\d+) programs, (?:nothing|\d+) got through\.")


def sandboxes(short: bool) -> Outcome:
    """All of them, or in the short form those of ``sharpen sandbox check`` at the level that this user gets."""
    outcome = Outcome()
    for user in ("root", "an ordinary user"):
        if os.geteuid() == 0:
            other = {} if user == "root" else {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        elif user == "root":
            outcome.skipped.append("programs started by root: this is an ordinary user")
            continue
        else:
            other = {}
        for isolation in ("namespaces", "landlock"):
            if short and outcome.cases:
                return outcome
            outcome += _checked(user, isolation, short, other)
    return outcome


def _checked(user: str, isolation: str, short: bool, other: dict[str, object]) -> Outcome:
    name = f"{isolation}, as {user}"
    python = _python_of_all() if other else sys.executable
    command = [python, str(TREE / "tests" / "sandbox" / "battery")]
    if short:
        command = [python, "-c", "from sharpen.cli.app import main; main()", "sandbox", "check"]
    packages = [str(TREE / "src"), *site.getsitepackages()]
    environment = {
        **os.environ,
        "HOME": "/tmp",
        "PYTHONPATH": os.pathsep.join(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        ended = subprocess.run(
            [*command, "--isolation", isolation],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment,
            cwd="/",
            check=False,
            **other,  # type: ignore[call-overload]
        )
    except PermissionError as error:
        return Outcome(skipped=[f"{name}: {error}"])
    verdict = _VERDICT.search(ended.stdout)
    if verdict is None and _NOT_HERE in ended.stdout + ended.stderr:
        return Outcome(skipped=[f"{name}: {(ended.stdout + ended.stderr).strip()}"])
    outcome = Outcome(cases=int(verdict[1]) if verdict else 1)
    if verdict is None:
        outcome.failed(f"{name}: {ended.stdout}{ended.stderr}")
        return outcome
    if ended.returncode != 0:
        outcome.failed(f"{name}: {ended.stdout}")
    print(f"{name}: {verdict[0]}", flush=True)
    return outcome


def _python_of_all() -> str:
    """A Python of this version that an ordinary user may run: this one, if it is not in somebody's home."""
    own = Path(sys.executable).resolve()
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in own.parents):
        return sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return shutil.which(version, path="/usr/bin:/usr/local/bin") or sys.executable
