"""What a run of very many rows takes until its first step: seconds, processor seconds and memory.

    python benchmarks/large_data.py [--rows 20000 200000 2000000] [--kind jsonl ...] [--method grpo ...]

Writes files of short rows, as `{"prompt": "…", "answer": "…"}`, and starts a run of one step on each with a model of a
few thousand weights, in a process of its own. Seconds are those of the whole process, imports included; memory is the
kernel's peak (VmHWM). The floor is what no program of this kind can do without: reading the file once in Python, row by
row, and hashing its values. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 2**20
KINDS = ("jsonl", "parquet", "csv")
METHODS = ("grpo", "sft")


def write(path: Path, rows: int) -> None:
    """A file of so many sums; its ending says of which kind."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in _rows(rows))
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8") as file:
            file.write("prompt,answer,completion\n")
            file.writelines(f"{','.join(row.values())}\n" for row in _rows(rows))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(list(_rows(rows))), path)


def start(folder: Path, data: Path, method: str) -> None:
    """A run of one step."""
    from sharpen.launch.run import start
    from sharpen.recipe.loading import make_recipe

    tree = {
        "run": str(folder / "run"),
        "model": {"path": str(folder / "model"), "device": "cpu"},
        "data": {"train": str(data)},
        "training": {"steps": 1, "prompts_per_step": 16},
        "optimizer": {"warmup_steps": 0},
        "evaluation": {"every": 0},
        "checkpoint": {"best": None},
    }
    if method == "grpo":
        sampled = {"method": {"name": "grpo", "group_size": 4}, "rollout": {"max_new_tokens": 8}, "reward": "math"}
        start(make_recipe({**tree, **sampled}), say=lambda text: print(text, file=sys.stderr))
    else:
        start(make_recipe({**tree, "method": "sft"}), say=lambda text: print(text, file=sys.stderr))


def floor(data: Path) -> None:
    """Read each row and hash its prompt and its answer."""
    digest = hashlib.sha256()
    with data.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            digest.update(f"{row['prompt']}{row['answer']}".encode())


def measured(*arguments: str) -> tuple[float, float, float]:
    """Seconds, processor seconds and MiB of this script with these arguments."""
    started = time.perf_counter()
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    peak_kib, processor_s = done.stdout.splitlines()[-1].split()
    return seconds, float(processor_s), int(peak_kib) * 1024 / MIB


def say_used() -> None:
    """Print what this process took: its peak in KiB, and processor seconds."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    print(peak, time.process_time())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    options.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    options.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _model(folder / "model")
        print("| rows | file | MiB | method | s | processor s | peak MiB |\n|---|---|---|---|---|---|---|")
        for rows in asked.rows:
            for kind in asked.kind:
                data = folder / f"{rows}.{kind}"
                write(data, rows)
                size = data.stat().st_size / MIB
                cases = {method: ("--start", str(folder), str(data), method) for method in asked.method}
                if kind == "jsonl":
                    cases["the floor"] = ("--floor", str(data))
                for name, arguments in cases.items():
                    seconds, processor_s, peak_mib = measured(*arguments)
                    print(
                        f"| {rows:,} | {kind} | {size:.0f} | {name} | {seconds:.1f} | {processor_s:.1f} | "
                        f"{peak_mib:.0f} |",
                        flush=True,
                    )
                    shutil.rmtree(folder / "run", ignore_errors=True)
                data.unlink()


def _rows(rows: int) -> Iterator[dict[str, str]]:
    drawn = random.Random(0)
    for _ in range(rows):
        terms = [drawn.randrange(1000) for _ in range(drawn.randrange(2, 12))]
        answer = str(sum(terms))
        yield {"prompt": "+".join(map(str, terms)) + "=", "answer": answer, "completion": answer}


def _model(path: Path) -> None:
    from sharpen.data.tasks.arithmetic import ALPHABET
    from sharpen.models.character_model import create_character_model

    create_character_model(path, alphabet=ALPHABET, hidden=16, intermediate=24, layers=1, heads=2, context=128)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--start"]:
        start(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
        say_used()
    elif sys.argv[1:2] == ["--floor"]:
        floor(Path(sys.argv[2]))
        say_used()
    else:
        main()
