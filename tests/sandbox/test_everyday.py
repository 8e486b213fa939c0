"""Ordinary programs run in the sandbox as outside of it."""

from pathlib import Path

import pytest
from calls import run_under_the_filter
from everyday import COMPUTING, PACKAGES, WRITING, WRITING_PACKAGES, printed

from sharpen.sandbox import Limits, Sandbox

LIMITS = Limits(wall_s=60, cpu_s=60)


@pytest.mark.parametrize("name", COMPUTING)
def test_the_standard_library_works(sandbox: Sandbox, name: str) -> None:
    result = sandbox.run(COMPUTING[name], limits=LIMITS)
    assert result.stdout.decode() == printed(COMPUTING[name]), result.stderr.decode()


@pytest.mark.parametrize("name", WRITING)
def test_the_standard_library_writes_files(writing: Sandbox, name: str) -> None:
    result = writing.run(WRITING[name], limits=LIMITS)
    assert result.stdout.decode() == printed(WRITING[name]), result.stderr.decode()


@pytest.mark.parametrize("own_files", [True, False])
@pytest.mark.parametrize("name", PACKAGES)
def test_packages_of_numbers_work_under_the_filter(name: str, own_files: bool, tmp_path: Path) -> None:
    pytest.importorskip(name)
    done = run_under_the_filter(PACKAGES[name], tmp_path, own_files=own_files)
    assert done.stdout == printed(PACKAGES[name]), done.stderr


def test_numpy_writes_files_under_the_filter(tmp_path: Path) -> None:
    (program,) = WRITING_PACKAGES.values()
    done = run_under_the_filter(program, tmp_path, own_files=True)
    assert done.stdout == printed(program), done.stderr
