import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sharpen
from sharpen.system.workers import Exhausted, Worker, WorkerEnded, WorkerPool

ECHO = """
import json, sys, time
print("{}", flush=True)
for line in sys.stdin:
    question = json.loads(line)
    if question.get("end"):
        sys.exit(3)
    time.sleep(question.get("sleep_s", 0))
    print(json.dumps(question), flush=True)
"""


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Worker]:
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    worker = Worker(script)
    yield worker
    worker.close()


def test_an_answer_that_came_too_late_is_never_taken_for_the_next(echo: Worker) -> None:
    assert echo.ask({"i": 1}, timeout_s=5) == {"i": 1}
    with pytest.raises(TimeoutError):
        echo.ask({"i": 2, "sleep_s": 60}, timeout_s=0.05)
    assert echo.ask({"i": 3}, timeout_s=5) == {"i": 3}


def test_its_program_finds_sharpen_after_all_else(tmp_path: Path) -> None:
    script = tmp_path / "paths.py"
    script.write_text('import json, sys\nprint("{}", flush=True)\ninput()\nprint(json.dumps({"paths": sys.path}))\n')
    worker = Worker(script)
    paths = worker.ask({}, timeout_s=5)["paths"]
    worker.close()
    assert paths[-1] == str(Path(sharpen.__file__).parents[1])
    # A file beside the script, such as a math.py, hides none of Python's own.
    assert str(tmp_path) not in paths
    assert "" not in paths


def test_a_worker_that_dies_is_named_and_started_again(echo: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"echo\.py ended with status 3"):
        echo.ask({"end": True}, timeout_s=5)
    assert echo.ask({"i": 1}, timeout_s=5) == {"i": 1}
    assert echo._process is not None
    pid = echo._process.pid
    os.kill(pid, 9)
    echo._process.wait()
    assert echo.ask({"i": 2}, timeout_s=5) == {"i": 2}
    assert echo._process.pid != pid


def test_long_questions_and_answers_are_whole(echo: Worker) -> None:
    question = {"text": "é\n" * 500_000}
    assert echo.ask(question, timeout_s=10) == question


@pytest.mark.parametrize(
    "then",
    [
        "time.sleep(60)",  # before the question is read
        "subprocess.Popen(['sleep', '5']); time.sleep(60)",  # and another process keeps the pipe open
        "os.closerange(0, 3); time.sleep(60)",  # and the pipe is closed
    ],
)
def test_a_program_that_reads_nothing_holds_up_nobody(tmp_path: Path, then: str) -> None:
    script = tmp_path / "deaf.py"
    script.write_text(f'import os, subprocess, time\nprint("{{}}", flush=True)\n{then}\n')
    worker = Worker(script)
    started_s = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.5 s"):
        worker.ask({"text": "a" * 1_000_000}, timeout_s=0.5)
    worker.close()
    assert time.monotonic() - started_s < 4


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WorkerPool]:
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    pool = WorkerPool(script, size=2)
    yield pool
    pool.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Where the first process of a container waits for no one else's children, an ended one stays as a zombie.
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def in_threads(calls: list[tuple[float, float]], pool: WorkerPool) -> list[object]:
    """What becomes of questions asked at once, each as (seconds it takes, time-out)."""
    results: list[object] = [None] * len(calls)

    def ask(i: int) -> None:
        try:
            results[i] = pool.ask({"i": i, "sleep_s": calls[i][0]}, calls[i][1])["i"]
        except TimeoutError:
            results[i] = TimeoutError

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_workers_are_started_when_needed_and_no_more_than_needed(pool: WorkerPool) -> None:
    assert pool.pids() == []
    for i in range(5):
        assert pool.ask({"i": i}, timeout_s=5) == {"i": i}
    assert len(pool.pids()) == 1
    assert in_threads([(0.1, 5)] * 6, pool) == [0, 1, 2, 3, 4, 5]
    assert len(pool.pids()) == 2


def test_questions_are_answered_side_by_side(pool: WorkerPool) -> None:
    in_threads([(0.0, 5)] * 2, pool)
    start = time.monotonic()
    assert in_threads([(0.5, 5)] * 2, pool) == [0, 1]
    assert time.monotonic() - start < 0.95


def test_one_that_hangs_stops_no_other_and_waiting_costs_no_time(pool: WorkerPool) -> None:
    in_threads([(0.0, 5)] * 2, pool)
    # The two that hang hold both workers for longer than the others may take.
    assert in_threads([(60, 0.5), (60, 0.5), (0, 0.3), (0, 0.3)], pool) == [TimeoutError, TimeoutError, 2, 3]
    assert in_threads([(60, 1.0), (0.1, 0.9), (0.1, 0.9)], pool)[1:] == [1, 2]


def test_closing_ends_the_processes_and_what_they_are_doing(pool: WorkerPool) -> None:
    in_threads([(0.1, 5)] * 2, pool)
    pids = pool.pids()

    def wait() -> None:
        with pytest.raises(RuntimeError):
            pool.ask({"sleep_s": 60}, 60)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    pool.close()
    waiting.join(5)
    assert not waiting.is_alive()
    assert [alive(pid) for pid in pids] == [False, False]
    assert pool.ask({"i": 1}, timeout_s=5) == {"i": 1}


def test_a_forked_process_has_workers_of_its_own(pool: WorkerPool) -> None:
    assert pool.ask({"i": 1}, timeout_s=5) == {"i": 1}
    (pid,) = pool.pids()
    child = os.fork()
    if child == 0:
        answered = pool.ask({"i": 2}, timeout_s=5) == {"i": 2} and pid not in pool.pids()
        pool.close()
        os._exit(0 if answered else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.pids() == [pid]
    assert pool.ask({"i": 3}, timeout_s=5) == {"i": 3}


def test_workers_see_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "environment.py"
    script.write_text("import json, os\nprint('{}', flush=True)\ninput()\nprint(json.dumps(dict(os.environ)))")
    monkeypatch.setenv("HF_TOKEN", "secret")
    worker = Worker(script)
    environment = worker.ask({}, timeout_s=5)
    worker.close()
    assert "HF_TOKEN" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_no_worker_outlives_a_process_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    program = tmp_path / "trainer.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom sharpen.system.workers import WorkerPool\n"
        "pool = WorkerPool(Path(sys.argv[1]))\npool.ask({}, 5)\nprint(*pool.pids(), flush=True)\nsys.stdin.read()\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, str(program), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    (pid,) = map(int, trainer.stdout.readline().split())
    assert alive(pid)
    trainer.kill()
    trainer.wait()
    trainer.stdin.close()
    trainer.stdout.close()
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


JUDGE = """
import json, os, signal, sys, time
from sharpen.system.worker_program import serve

kept = []


def answer(question):
    do = question["do"]
    if do == "compute":
        while True:
            pass
    if do == "sleep":
        time.sleep(60)
    if do == "hoard":
        kept.append(bytearray(3 << 30))
    if do == "take":
        return {"taken": len(bytearray(question["size"]))}
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "fail":
        raise RuntimeError
    return {}


serve(lambda: answer)
"""


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[WorkerPool]:
    script = tmp_path / "judge.py"
    script.write_text(JUDGE)
    pool = WorkerPool(script, size=1)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("question", "reason", "timed_out"),
    [
        ({"do": "compute"}, "no answer within 0.2 s", True),
        ({"do": "take", "size": 5 << 30}, "more memory than the check may take", False),
        ({"do": "crash"}, r"a crash of the check \(SIGSEGV\)", False),
    ],
)
def test_what_a_text_does_to_the_worker_that_judges_it_is_the_texts_doing(
    judge: WorkerPool, question: dict[str, object], reason: str, timed_out: bool
) -> None:
    with pytest.raises(Exhausted, match=reason) as caught:
        judge.judge(question, 0.2)
    assert caught.value.timed_out is timed_out
    assert judge.judge({"do": "take", "size": 7}, 5)["taken"] == 7


@pytest.mark.parametrize(
    ("do", "kind", "message"),
    [
        ("sleep", TimeoutError, "no answer within 2 s"),  # a worker without a processor to run on
        ("die", WorkerEnded, "ended with status -9"),
        ("fail", WorkerEnded, "ended with status 1"),
    ],
)
def test_what_else_ends_a_worker_is_a_failure_and_nobodys_score(
    judge: WorkerPool, do: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        judge.judge({"do": do}, 0.2)


def test_a_worker_that_cannot_start_is_a_failure(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("from sharpen.system.worker_program import serve\nserve(lambda: 1 / 0)\n")
    with pytest.raises(WorkerEnded, match=r"broken\.py ended with status 1"):
        WorkerPool(script, size=1).judge({}, 5)


def test_a_text_does_not_pay_for_the_memory_that_another_took(judge: WorkerPool) -> None:
    (pid,) = (judge.judge({"do": "hoard"}, 20), judge.pids())[1]
    assert judge.judge({"do": "take", "size": 2 << 30}, 20)["taken"] == 2 << 30
    assert judge.pids() != [pid]
