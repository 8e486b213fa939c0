"""Which cgroup may be divided, and what is written to divide it. `fake_cgroups` stands for the kernel."""

import errno
import os
from pathlib import Path

import pytest
from fake_cgroups import FakeCgroups, fake_proc, mounted

from sharpen.sandbox.cgroups import delegated
from sharpen.sandbox.cgroups.delegated import NoCgroup, delegated_cgroup

ME = os.getpid()
CHILD, GRANDCHILD, STRANGER = ME + 1, ME + 2, ME + 3
PARENTS = {1: 0, ME: 1, CHILD: ME, GRANDCHILD: CHILD, STRANGER: 1}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroups:
    return FakeCgroups(tmp_path / "cgroup", monkeypatch)


def found(kernel: FakeCgroups, cgroup: str, *, named: str | None = None, systemd: bool = False) -> str:
    """The cgroup that is found, as a path below the mounted one, for a process in the given one."""
    proc = kernel.root.parent / "proc"
    if not proc.exists():
        fake_proc(proc, f"4:memory:/other\n0::{cgroup}\n", mounted(kernel.root), PARENTS)
    manager = kernel.root if systemd else kernel.root / "no systemd"
    return str(delegated_cgroup(named, proc=proc, systemd=manager).path.relative_to(kernel.root))


def test_alone_in_a_cgroup_it_moves_itself_and_what_it_started_and_divides_it(kernel: FakeCgroups) -> None:
    scope = kernel.delegate("scope", CHILD, ME, GRANDCHILD)
    assert found(kernel, "/scope") == "scope"
    assert kernel.written == [
        ("scope/sharpen-main", "cgroup.procs", str(ME)),
        ("scope/sharpen-main", "cgroup.procs", str(CHILD)),
        ("scope/sharpen-main", "cgroup.procs", str(GRANDCHILD)),
        ("scope", "cgroup.subtree_control", "+memory +pids"),
    ]
    assert kernel.processes(scope) == []
    assert (kernel.make(scope / "run") / "memory.max").read_text() == "max\n"


def test_beside_a_process_that_it_did_not_start_it_moves_nothing(kernel: FakeCgroups) -> None:
    scope = kernel.delegate("scope", ME, CHILD, STRANGER)
    with pytest.raises(NoCgroup, match=rf"did not start are in {scope}: {STRANGER}$"):
        found(kernel, "/scope")
    assert kernel.written == []
    assert kernel.processes(scope) == [ME, CHILD, STRANGER]


def test_a_process_outside_its_pid_namespace_is_not_its_own(kernel: FakeCgroups) -> None:
    kernel.delegate("scope", ME, 0)
    with pytest.raises(NoCgroup, match=r": 0$"):
        found(kernel, "/scope")
    assert kernel.written == []


def test_a_process_that_has_moved_finds_the_same_again_and_writes_nothing(kernel: FakeCgroups) -> None:
    kernel.delegate("scope", ME)
    found(kernel, "/scope")
    kernel.written.clear()
    (kernel.root.parent / "proc" / "self" / "cgroup").write_text("0::/scope/sharpen-main\n")
    assert found(kernel, "", systemd=True) == "scope"  # that it is delegated was seen before
    assert kernel.written == []


def test_a_process_that_ends_while_it_is_moved_is_left_out(kernel: FakeCgroups) -> None:
    scope = kernel.delegate("scope", ME, CHILD)
    kernel.ended.add(CHILD)
    assert found(kernel, "/scope") == "scope"
    assert kernel.processes(scope / "sharpen-main") == [ME]


def test_a_process_started_meanwhile_is_moved_too(kernel: FakeCgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = kernel.delegate("scope", ME, CHILD)
    real = kernel._move

    def move(path: Path, pid: int) -> None:
        real(path, pid)
        if pid == ME:
            with (scope / "cgroup.procs").open("a") as procs:
                procs.write(f"{GRANDCHILD}\n")

    monkeypatch.setattr(kernel, "_move", move)
    assert found(kernel, "/scope") == "scope"
    assert kernel.processes(scope / "sharpen-main") == [ME, CHILD, GRANDCHILD]


def test_what_never_stops_starting_processes_is_given_up(kernel: FakeCgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = kernel.delegate("scope", ME, CHILD)
    monkeypatch.setattr(kernel, "_move", lambda path, pid: None)
    with pytest.raises(NoCgroup, match=f"processes in {scope} are hidden, or ever more"):
        found(kernel, "/scope")


def test_beside_a_process_whose_parents_are_hidden_it_moves_nothing(kernel: FakeCgroups) -> None:
    scope = kernel.delegate("scope", ME, STRANGER + 1)
    with pytest.raises(NoCgroup, match=f"processes in {scope} are hidden"):
        found(kernel, "/scope")
    assert kernel.written == []


@pytest.mark.parametrize("name", ["user.delegate", "trusted.delegate"])
def test_where_systemd_manages_cgroups_only_those_that_it_delegates(
    kernel: FakeCgroups, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scope = kernel.delegate("scope", ME)
    attributes: dict[tuple[Path, str], bytes] = {}

    def getxattr(path: Path, asked: str) -> bytes:
        if (path, asked) not in attributes:
            raise OSError(errno.ENODATA, "No data available")
        return attributes[path, asked]

    monkeypatch.setattr(delegated.os, "getxattr", getxattr)
    monkeypatch.setenv("PATH", str(kernel.root))  # no systemctl
    with pytest.raises(NoCgroup, match=f"systemd does not delegate {scope}"):
        found(kernel, "/scope", systemd=True)
    assert kernel.written == []
    attributes[scope, name] = b"1"
    assert found(kernel, "/scope", systemd=True) == "scope"


def test_a_systemd_that_marks_nothing_is_asked(kernel: FakeCgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = kernel.root.parent / "bin"
    tools.mkdir()
    said = kernel.root.parent / "said"
    systemctl = tools / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" > {said}\necho no\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name in ("user@1000.service", "user@1000.service/run-1.scope", "run-2.scope"):
        kernel.delegate(name, ME)
        (kernel.root / name / "cgroup.subtree_control").write_text("memory pids\n")
    with pytest.raises(NoCgroup, match="systemd does not delegate"):
        found(kernel, "/user@1000.service/run-1.scope", systemd=True)
    assert said.read_text() == "--user show --property=Delegate --value -- run-1.scope\n"
    systemctl.write_text(f'#!/bin/sh\necho "$@" > {said}\necho yes\n')
    (kernel.root.parent / "proc" / "self" / "cgroup").write_text("0::/run-2.scope\n")
    (kernel.root / "run-2.scope" / "cgroup.subtree_control").write_text("\n")
    kernel._put(kernel.root / "run-2.scope", [ME])
    assert found(kernel, "", systemd=True) == "run-2.scope"
    assert said.read_text() == "show --property=Delegate --value -- run-2.scope\n"


def test_a_named_cgroup_is_divided_without_moving_anything(kernel: FakeCgroups) -> None:
    folder = kernel.delegate("sharpen")
    kernel.delegate("elsewhere", ME, STRANGER)
    assert found(kernel, "/elsewhere", named=str(folder), systemd=True) == "sharpen"
    assert kernel.written == [("sharpen", "cgroup.subtree_control", "+memory +pids")]


def test_the_root_cgroup_is_used_only_if_it_is_named(kernel: FakeCgroups) -> None:
    kernel._put(kernel.root, [ME, STRANGER])
    with pytest.raises(NoCgroup, match="root cgroup, which all others share"):
        found(kernel, "/")
    assert kernel.written == []
    assert found(kernel, "/", named=str(kernel.root)) == "."
    assert kernel.written == [(".", "cgroup.subtree_control", "+memory +pids")]
    assert kernel.processes(kernel.root) == [ME, STRANGER]


def test_a_named_folder_that_is_no_cgroup_is_refused(kernel: FakeCgroups, tmp_path: Path) -> None:
    for named in (str(tmp_path), str(tmp_path / "missing"), "scope", ""):
        with pytest.raises(NoCgroup, match="is not the folder of a cgroup of version 2"):
            found(kernel, "/", named=named)


def test_what_is_missing_is_named(kernel: FakeCgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = kernel.delegate("scope", ME)
    (scope / "cgroup.controllers").write_text("cpu io memory\n")
    with pytest.raises(NoCgroup, match=f"{scope} has no controller for pids$"):
        found(kernel, "/scope")
    (scope / "cgroup.controllers").write_text("cpu memory pids\n")
    (scope / "cgroup.type").write_text("threaded\n")
    with pytest.raises(NoCgroup, match="'threaded'"):
        found(kernel, "/scope")
    (scope / "cgroup.type").write_text("domain\n")
    refused = scope / "cgroup.procs"
    monkeypatch.setattr(delegated.os, "access", lambda path, mode: path != refused)
    with pytest.raises(NoCgroup, match=f"may not write {refused}"):
        found(kernel, "/scope")
    assert kernel.written == []


def test_an_error_of_the_kernel_names_the_file(kernel: FakeCgroups) -> None:
    kernel.delegate("scope", ME)
    kernel.failing["cgroup.subtree_control"] = OSError(errno.EOPNOTSUPP, "Not supported", "cgroup.subtree_control")
    with pytest.raises(NoCgroup, match=r"^cgroup.subtree_control: Not supported$"):
        found(kernel, "/scope")


@pytest.mark.parametrize(
    ("cgroup", "root", "expected"),
    [
        ("/user.slice/a.scope", "/", "user.slice/a.scope"),
        ("/docker/abc", "/docker/abc", "."),
        ("/docker/abc/inner", "/docker/abc", "inner"),
        ("/a b", "/a\\040b", "."),
        ("/docker/abcd", "/docker/abc", None),
        ("/../outside", "/", None),
        ("/", "/..", None),
    ],
)
def test_the_cgroup_of_a_process_is_found_below_what_is_mounted(
    tmp_path: Path, cgroup: str, root: str, expected: str | None
) -> None:
    proc = fake_proc(tmp_path / "proc", f"1:name=systemd:/x\n0::{cgroup}\n", mounted("/sys/fs/cgroup/unified", root))
    if expected is None:
        with pytest.raises(NoCgroup, match="no cgroup of version 2 is mounted that this process is in"):
            delegated._cgroup_of_process(proc)
    else:
        assert delegated._cgroup_of_process(proc).path == Path("/sys/fs/cgroup/unified") / expected


def test_a_machine_without_cgroups_of_version_2(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path / "proc", "4:memory:/x\n", "31 22 0:28 / /x rw - cgroup cgroup rw,memory\n")
    with pytest.raises(NoCgroup, match="no cgroup of version 2"):
        delegated_cgroup(None, proc=proc)
    with pytest.raises(NoCgroup, match="self/cgroup: No such file"):
        delegated_cgroup(None, proc=tmp_path / "none")
