"""The quick-start notebook, and training in a kernel: its progress, its interruption, its event loop."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

import sharpen

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
WITHIN_S = 240.0


def texts(outputs: list[dict[str, Any]]) -> Iterator[str]:
    """Everything readable in the outputs of a cell."""
    for output in outputs:
        yield output.get("text", "")
        yield from (str(data) for kind, data in output.get("data", {}).items() if kind.startswith("text/"))


def test_the_quick_start_runs_and_its_model_learns(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    # Any cell that raises ends this with its traceback.
    NotebookClient(notebook, timeout=int(WITHIN_S), resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    said = "\n".join(text for cell in outputs.values() for text in texts(cell))
    assert "ipywidgets" not in said
    assert "IProgress" not in said
    assert "Warning" not in said

    def of(beginning: str) -> list[dict[str, Any]]:
        [found] = (cell for source, cell in outputs.items() if source.startswith(beginning))
        return found

    training = "\n".join(texts(of("run = sharpen.train")))
    assert '<progress value="40" max="40">' in training
    assert re.search(r"step 40/40  reward 0\.\d{3}  held-out pass@1", training)
    assert any("image/png" in output.get("data", {}) for output in of("run.plot()"))
    assert any("<table" in text for text in texts(of('run.metrics[["reward/mean"')))

    run = sharpen.Run.open(tmp_path / "quickstart" / "run")
    reward = run.metrics["reward/mean"]
    # Random letters alternate in 2 · 5/26 · 21/26 = 31 % of all places.
    assert reward.loc[1:3].mean() < 0.45
    assert reward.loc[38:40].mean() > 0.8
    written = of("with sharpen.load(run)")[0]["text"].splitlines()
    assert len(written) == 6
    assert all(re.fullmatch(r"[sm][a-z]{0,8} -\d+\.\d+", line) for line in written)


@contextmanager
def kernel(folder: Path) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    manager, client = start_new_kernel(cwd=str(folder))
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


SETUP = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import asyncio, sharpen
from api_runs import ROWS, digit_model, first_digit
model = digit_model("model")
settings = {{"rollout": {{"max_new_tokens": 4}}, "checkpoint": {{"every": 0}}}}
"""


def test_interrupting_the_kernel_stops_a_run_after_its_step(tmp_path: Path) -> None:
    """The call returns, and the run goes on from where it stopped."""
    interrupted = False

    def watch(message: dict[str, Any]) -> None:
        nonlocal interrupted
        data = message["content"].get("data", {}).get("text/plain", "")
        if not interrupted and re.search(r"step [1-9]", data):
            interrupted = True
            manager.interrupt_kernel()

    with kernel(tmp_path) as (manager, client):
        steps = "training={'steps': 100_000, 'prompts_per_step': 2}"
        train = f"run = sharpen.train(model, 'grpo', ROWS, reward=first_digit, run='run', {steps}, **settings)"
        reply = client.execute_interactive(SETUP + train, timeout=WITHIN_S, output_hook=watch)
        assert interrupted
        assert reply["content"]["status"] == "ok", reply["content"]
        # The handlers of the kernel are back: what runs now is interrupted as usual.
        before_s = time.monotonic()
        client.execute("import time; print('waiting', flush=True); time.sleep(60)")
        while client.get_iopub_msg(timeout=WITHIN_S)["content"].get("text", "") != "waiting\n":
            pass
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=WITHIN_S)["content"].get("ename") == "KeyboardInterrupt"
        assert time.monotonic() - before_s < 50
    run = sharpen.Run.open(tmp_path / "run")
    assert not run.finished
    last = run.metrics.index[-1]
    assert run.model.name == f"step_{last:06d}"


def test_a_run_within_an_event_loop_shows_a_bar_that_is_redrawn(tmp_path: Path) -> None:
    """A kernel always has a running loop; an async reward gets its own. A quiet run shows nothing."""
    code = """
async def delayed(completion, answer, **row):
    await asyncio.sleep(0)
    return first_digit(completion, answer)

async def main(folder, **more):
    assert asyncio.get_running_loop()
    return sharpen.train(model, 'grpo', ROWS, reward=delayed, run=folder, training={'steps': 3}, **settings, **more)
"""
    with kernel(tmp_path) as (_, client):

        def outputs(cell: str) -> list[tuple[str, dict[str, Any]]]:
            shown: list[dict[str, Any]] = []
            reply = client.execute_interactive(cell, timeout=WITHIN_S, output_hook=shown.append)
            assert reply["content"]["status"] == "ok", reply["content"]
            found = [(m["header"]["msg_type"], m["content"]) for m in shown]
            return [(kind, content) for kind, content in found if kind not in ("status", "execute_input")]

        assert outputs(SETUP + code) == []
        loud = outputs("run = await main('loud')\nassert run.finished")
        assert outputs("run = await main('quiet', quiet=True)\nassert run.finished") == []
    assert {content["name"] for kind, content in loud if kind == "stream"} <= {"stdout"}
    bars = [content for kind, content in loud if kind.endswith("display_data")]
    assert len({bar["transient"]["display_id"] for bar in bars}) == 1
    assert '<progress value="3" max="3">' in bars[-1]["data"]["text/html"]
    assert "step 3/3  reward" in bars[-1]["data"]["text/plain"]
