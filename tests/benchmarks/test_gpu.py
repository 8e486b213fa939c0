"""The benchmark for GPUs, on tiny shapes and without one."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_gpu_benchmark_runs_on_a_cpu_and_finds_what_it_checks(tmp_path):
    output, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        "--device",
        "cpu",
        "--smoke",
        "--output",
        output,
        "--markdown",
        page,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text(encoding="utf-8"))
    checks = [check["result"] for check in found["checks"]]
    # On the same device nothing is rounded differently: all of 3 prompts × 6 completions are equal.
    assert checks[:4] == ["18 of 18 equal the CPU's; 0 of the others part by rounding"] * 4
    assert all(check["passed"] for check in found["checks"])
    # 2 prompts of 16 tokens, 4 completions of 12 each.
    assert [trained["tokens"] for trained in found["trained"]] == [2 * 16 + 8 * 12]
    ours = found["stepped"][0][0]
    assert ours["contestant"] == "sharpen"
    assert round(ours["tokens_per_s"] * ours["seconds"]) == 8 * 12
    assert found["failures"] == []
    assert "| llama-smoke | 2 × 4 | no |" in page.read_text(encoding="utf-8")
