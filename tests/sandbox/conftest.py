import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import copy_alone

from sharpen.sandbox import Isolation, Sandbox, SandboxError


@pytest.fixture(scope="session", params=["namespaces", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each level that this machine has."""
    with Sandbox(request.param) as made:
        try:
            assert made.isolation is Isolation(request.param)
        except SandboxError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture(scope="session")
def writing() -> Iterator[Sandbox]:
    """A sandbox whose programs have a folder to write in."""
    with Sandbox("namespaces") as made:
        try:
            assert made.isolation is Isolation.NAMESPACES
        except SandboxError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture
def alone() -> Iterator[Path]:
    """A folder with the sandbox and nothing of the rest of the package, that anyone may read."""
    with tempfile.TemporaryDirectory() as folder:
        yield copy_alone(Path(folder))
