"""Bad inputs from the command line: each has the exit code and the words that a user gets, and leaves nothing behind.

    python tests/bad_inputs.py                    all cases
    python tests/bad_inputs.py "recipe: a tag"    those whose names contain a text
    python tests/bad_inputs.py --show             also what each one prints

`cases` and `check` are for tests, which take a share of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tiny_models import tiny_folder
from tiny_runs import merge, tiny_start_model

WITHIN_S = 30.0
"""No bad input takes longer to be refused."""
RUN = "runs/new"
TASK = "arithmetic?terms=2&digits=1&train_size=10&held_out_size=6&demonstration_size=10&preference_size=10"
RECIPE: dict[str, Any] = {
    "run": RUN,
    "model": {"path": "model", "device": "cpu"},
    "method": {"name": "grpo", "group_size": 2},
    "data": {"task": TASK},
    "rollout": {"max_new_tokens": 4},
    "training": {"steps": 1, "prompts_per_step": 4},
}
ROWS = [{"prompt": f"{a}+{a}=", "answer": str(a + a)} for a in range(1, 5)]

Files = Mapping[str, str | bytes]
Make = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A command in a folder of its own, which has a good ``recipe.yaml``, ``rows.jsonl`` and model.

    ``files`` and ``make`` change that folder first. ``words`` are what the message must hold, line ends as spaces.
    ``begins``: the run's folder is there afterwards, as only the running reward could tell. ``apart``: in a process of
    its own, with ``before`` as the shell commands that go before it.
    """

    name: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    code: int = 2
    files: Files = field(default_factory=dict)
    make: Make | None = None
    begins: bool = False
    apart: bool = False
    before: str = ""


def check(case: Case, folder: Path) -> str:
    """Do what a case says in ``folder``, which is empty, and return what was printed.

    Raises AssertionError if the exit code, the words, the time or what is left is not as it must be.
    """
    shutil.copytree(_model(), folder / "model")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    if case.make is not None:
        case.make(folder)
    began = time.monotonic()
    code, printed = _apart(case, folder) if case.apart else _within(case, folder)
    took_s = time.monotonic() - began
    said = " ".join(printed.split())
    assert "Traceback" not in printed, f"{case.name}: a traceback:\n{printed}"
    assert code == case.code, f"{case.name}: exit code {code}, not {case.code}:\n{printed}"
    lacking = [words for words in case.words if words not in said]
    assert not lacking, f"{case.name}: {lacking} not in:\n{printed}"
    assert len(printed) < 5_000, f"{case.name}: {len(printed)} letters:\n{printed[:2_000]}"
    assert took_s < WITHIN_S, f"{case.name}: took {took_s:.0f} s"
    if not case.begins:
        left = [path for path in (folder / "runs").rglob("*") if path.is_file()]
        assert not left, f"{case.name}: left {left}"
    return printed


def _within(case: Case, folder: Path) -> tuple[int, str]:
    from sharpen.cli.app import app

    with contextlib.chdir(folder):
        result = CliRunner(env={"COLUMNS": "100"}).invoke(app, list(case.arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 1, "".join(traceback.format_exception(result.exception))
    return result.exit_code, result.output


def _apart(case: Case, folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", "from sharpen.cli.app import main; main()", *case.arguments]
    if case.before:
        # A mount of a process's own needs a name space of its own.
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f'{case.before}\nexec "$@"',
            "sh",
            *command,
        ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


@cache
def _model() -> Path:
    """Made once in a process; the system removes it with its temporary folder."""
    return tiny_start_model(Path(tempfile.mkdtemp(prefix="bad-inputs-")) / "model")


def cases() -> list[Case]:
    """All cases, with names of their own."""
    found = [
        *_recipes(),
        *_overrides(),
        *_numbers(),
        *_settings(),
        *_models(),
        *_devices(),
        *_data(),
        *_rewards(),
        *_running_rewards(),
        *_tasks(),
        *_parts(),
        *_folders(),
        *_disks(),
        *_commands(),
    ]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), {name for name in names if names.count(name) > 1}
    return found


def _recipe(name: str, content: str | bytes, *words: str) -> Case:
    return Case(f"recipe: {name}", ("run", "recipe.yaml"), words, files={"recipe.yaml": content})


def _changed(name: str, changes: Mapping[str, Any], *words: str, **more: Any) -> Case:
    files = {"recipe.yaml": json.dumps(merge(RECIPE, changes)), **more.pop("files", {})}
    return Case(name, ("run", "recipe.yaml", "-q"), words, files=files, **more)


def _override(name: str, *overrides: str, words: tuple[str, ...], **more: Any) -> Case:
    return Case(name, ("run", "recipe.yaml", *overrides), words, **more)


def _recipes() -> Iterator[Case]:
    good = "run: runs/new\nmodel: model\nmethod: grpo\ndata: {task: arithmetic}\n"
    yield Case("recipe: none given", ("run",), ("give a recipe",))
    yield Case("recipe: not there", ("run", "recipes.yaml"), ("recipes.yaml: no such recipe",))
    yield Case("recipe: a folder", ("run", "model"), ("model: a folder, not a recipe",))
    yield Case("recipe: within a file", ("run", "rows.jsonl/recipe.yaml"), ("cannot be read: Not a directory",))
    yield Case("recipe: a name that is too long", ("run", "a" * 300), ("cannot be read: File name too long",))
    yield _recipe("empty", "", "`run`: Field required", "`model`: Field required", "`method`: Field required")
    yield _recipe("only comments", "# nothing\n", "`run`: Field required")
    yield _recipe(
        "Latin-1", "run: café\n".encode("latin-1"), "not a text in UTF-8 (byte 8 is 0xe9)", "save it as UTF-8"
    )
    yield _recipe("UTF-16", good.encode("utf-16"), "not a text in UTF-8 (byte 0 is 0xff)")
    yield _recipe("UTF-32", good.encode("utf-32-be"), "not YAML", "special characters are not allowed")
    yield _recipe("NUL", good + "seed: 1\0\n", "not YAML", "#x0000")
    yield _recipe("a binary file", bytes(range(256)) * 8, "not a text in UTF-8")
    yield _recipe("a list", "- run\n- model\n", "a recipe is a mapping of settings")
    yield _recipe("a text", "grpo\n", "a recipe is a mapping of settings")
    yield _recipe("a number", "12\n", "a recipe is a mapping of settings")
    yield _recipe("JSON Lines", '{"run": "a"}\n{"run": "b"}\n', "not YAML: line 2, column 1")
    yield _recipe("two documents", good + "---\n" + good, "not YAML: line 5", "another document")
    yield _recipe("a tab", "run: a\n\tmodel: b\n", "not YAML: line 2")
    yield _recipe("an open bracket", good + "rollout: {stop: [\n", "not YAML: line 6")
    yield _recipe("an open quote", good + 'seed: "1\n', "not YAML: line 6", "quoted scalar")
    yield _recipe("an unknown alias", good + "seed: *x\n", "not YAML: line 5, column 7", "undefined alias 'x'")
    yield _recipe("a bad indentation", "run: a\n  model: b\n", "not YAML: line 2")
    yield _recipe(
        "a tag of Python's", good + "seed: !!python/object/apply:os.system [true]\n", "python/object/apply:os.system"
    )
    yield _recipe("an own tag", good + "seed: !mine 1\n", "could not determine a constructor for the tag '!mine'")
    yield _recipe("nested 10,000 deep", good + "reward: " + "[" * 10_000 + "]" * 10_000, "nested too deeply")
    yield _recipe("nested 100 deep", good + "reward: " + "[" * 100 + "]" * 100, "`reward.0.0.0` … is nested too deeply")
    bomb = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 10))
    yield _recipe("a bomb of aliases", "x0: &x0 [a]\n" + bomb + good, "more than 100,000 values")
    yield _recipe("an alias of itself", good + "reward: &a [*a]\n", "nested too deeply")
    yield _recipe("a key twice", good + "seed: 1\nrun: runs/other\n", "line 6: `run` is given twice, first in line 1")
    yield _recipe(
        "a key of a section twice",
        good + "training:\n  steps: 1\n  prompts_per_step: 2\n  steps: 3\n",
        "line 8: `training.steps` is given twice, first in line 6",
    )
    yield _recipe(
        "a key twice on one line",
        good + "rollout: {stop: [a], stop: [b]}\n",
        "line 5: `rollout.stop` is given twice, first in line 5",
    )
    yield _recipe(
        "a key of a reward in a list twice",
        good + "reward:\n  - {name: regex, pattern: a, pattern: b}\n",
        "line 6: `reward.0.pattern` is given twice",
    )
    yield _recipe("a section twice", good + "data: {task: words}\n", "line 5: `data` is given twice, first in line 4")
    yield _recipe("a list as a key", good + "? [1, 2]\n: 3\n", "line 5: a key is a name, not a list")
    yield _recipe("a number as a key", good + "7: 1\n", "unknown setting `7`")
    yield _recipe("null as a key", good + "null: 1\n", "key")
    yield _recipe("bytes", good.replace("model: model", "model: !!binary aGVsbG8="), "`model`: a bytes is no value")
    yield _recipe("a set", good + "seed: !!set {a, b}\n", "recipe.yaml:")
    yield _recipe("an integer of 5,000 digits", good + f"seed: {'9' * 5000}\n", "recipe.yaml:", "4300 digits")
    yield _recipe(
        "an integer of 400 digits",
        good + f"training: {{steps: {'9' * 400}}}\n",
        "`training.steps`: the number is too large: at most 9.2e+18",
    )
    yield _recipe(
        "half of a surrogate pair",
        good + 'rollout: {stop: ["\\ud800"]}\n',
        "not YAML: line 5",
        "invalid Unicode character escape",
    )
    yield _recipe("a reference to no setting", good + "seed: ${sead}\n", "recipe.yaml:", "sead")
    yield _recipe("a reference to itself", good + "seed: ${seed}\n", "recipe.yaml:")
    yield _recipe("an unknown resolver", good + "seed: ${nothing:1}\n", "recipe.yaml:", "nothing")
    yield _recipe("a missing environment variable", good + "seed: ${oc.env:SHARPEN_NOT_THERE}\n", "SHARPEN_NOT_THERE")
    yield _recipe("a broken reference", good + "seed: '${'\n", "recipe.yaml:")
    yield _recipe("a mandatory value", good + "seed: ???\n", "recipe.yaml:")
    yield _recipe(
        "an unknown section", good + "trainer: {steps: 3}\n", "unknown setting `trainer`. Did you mean `training`?"
    )
    yield _recipe("a section that is a number", good + "training: 3\n", "`training`", "(given: 3)")
    yield _recipe("a section that is a list", good + "training: [steps]\n", "`training`")
    yield _recipe("a section that is null", good + "training: null\n", "`training`", "(given: None)")
    yield _recipe("a value of 100,000 letters", good + f"seed: {'a' * 100_000}\n", "`seed`", "more letters")
    for setting, value in (("run", "runs/new"), ("model", "model"), ("method", "grpo"), ("data", "{task: arithmetic}")):
        yield _recipe(f"without {setting}", good.replace(f"{setting}: {value}\n", ""), f"`{setting}`: Field required")
        yield _recipe(f"{setting} is null", good.replace(f"{setting}: {value}\n", f"{setting}: null\n"), f"`{setting}`")


def _overrides() -> Iterator[Case]:
    for name, override, words in (
        ("no equals sign", "training.steps", "settings are overridden as KEY=VALUE"),
        ("no key", "=3", "settings are overridden as KEY=VALUE"),
        ("a blank key", " =3", "settings are overridden as KEY=VALUE"),
        ("an open bracket", "rollout.stop=[", "rollout.stop: not YAML"),
        ("two dots", "training..steps=3", "recipe.yaml:"),
        ("a dot first", ".steps=3", "recipe.yaml:"),
        ("a dot alone", ".=3", "recipe.yaml:"),
        ("a bracket as a key", "[=3", "recipe.yaml:"),
        ("a place in what is no list", "training[0]=3", "recipe.yaml:"),
        ("within a number", "seed.x=3", "`seed`"),
        ("a key twice within", "training={steps: 1, steps: 2}", "training: line 1: `steps` is given twice"),
        ("a tag of Python's", "seed=!!python/name:os.system", "python/name:os.system"),
        (
            "a bomb of aliases",
            f"reward=[&a [{'x,' * 400}], &b [{'*a,' * 400}], *b]",
            "reward: more than 100,000 values",
        ),
        ("nested 2,000 deep", f"reward={'[' * 2000}{']' * 2000}", "reward: nested too deeply"),
        (
            "bytes that are not UTF-8",
            "data.chat_template=\udcff",
            "`data.chat_template`: the text is not valid Unicode",
        ),
        ("a path that is a number", "run=7", "`run`: write a path"),
        ("a model that is a number", "model=7", "`model`"),
    ):
        yield _override(f"override: {name}", override, words=(words,))
    yield _override(
        "override: a key twice", "training.steps=1", "training.steps=2", words=("`training.steps` is given twice",)
    )


_NUMBERS = (
    # A setting, what it may not be, and what else has to be set for it to have an effect.
    ("seed", "-1 2**63 10**400 true 1.5 .nan .inf [1] x", {}),
    ("training.steps", "-1 0 true 10**400 1.5 .nan .inf -.inf x", {}),
    ("training.prompts_per_step", "0 true 10**12", {}),
    ("training.tokens_per_microbatch", "0 -5 true 10**400", {}),
    ("rollout.max_new_tokens", "0 -1 true 10**400", {}),
    ("rollout.temperature", "0 -1 true 1e-320 1e300 .nan .inf", {}),
    ("rollout.lag", "-1 true 10**400", {}),
    ("rollout.max_reward_failures", "-0.1 1.1 true .nan", {}),
    ("rollout.top_p", "0.9 true", {}),
    ("rollout.engine.max_sequences", "0 true 10**400", {}),
    ("rollout.engine.kv_gib", "0 -1 true .inf 1e300", {}),
    ("optimizer.learning_rate", "0 -1e-6 true .nan .inf 1e300", {}),
    ("optimizer.betas", "[0.9] [0.9,0.9,0.9] [1,0.9] [0.9,1] [-0.1,0.9] [0.9,1.5] [true,0.9] [.nan,0.9] 0.9", {}),
    ("optimizer.eps", "0 -1 true 2 1e300", {}),
    ("optimizer.weight_decay", "-0.1 true 1e300 .inf", {}),
    ("optimizer.warmup_steps", "-1 true 10**400", {}),
    ("optimizer.min_ratio", "-0.1 1.1 true", {"optimizer": {"schedule": "linear"}}),
    ("optimizer.max_grad_norm", "0 -1 true .inf 1e300", {}),
    ("evaluation.every", "-1 true 10**400", {}),
    ("evaluation.prompts", "0 true 10**400", {"evaluation": {"every": 1}}),
    ("evaluation.n", "0 true 10**9 10**400", {"evaluation": {"every": 1}}),
    ("evaluation.k", "[] [0] [true] [1.5] 1 [10**400]", {"evaluation": {"every": 1}}),
    ("evaluation.threshold", "true .nan .inf 1e300", {}),
    ("evaluation.temperature", "-1 true 1e-320 1e300", {"evaluation": {"every": 1}}),
    ("evaluation.top_p", "0 1.1 true", {"evaluation": {"every": 1}}),
    ("evaluation.top_k", "-1 true 10**400", {"evaluation": {"every": 1}}),
    ("evaluation.min_p", "-0.1 1.1 true", {"evaluation": {"every": 1}}),
    ("checkpoint.every", "-1 true 10**400", {}),
    ("checkpoint.every_minutes", "-1 true .inf 1e300", {}),
    ("checkpoint.keep", "0 -1 true 10**400", {}),
    ("checkpoint.grace_s", "0 -1 true 1e300 .inf", {}),
    ("log.samples_every", "-1 true 10**400", {}),
    ("model.lora.rank", "0 true 10**9", {}),
    ("model.lora.alpha", "0 true 10**9", {}),
    ("reward_check.rows", "0 true 10**400", {}),
    ("reward_check.timeout_s", "0 true 1e300", {}),
)

_METHOD_NUMBERS = (
    ("grpo", "group_size", "0 1 true 10**9 10**400 1.5"),
    ("grpo", "beta", "-1 true .nan 1e300"),
    ("grpo", "eps_low", "0 1.1 -0.1 true 1e300"),
    ("grpo", "eps_high", "0 -0.1 true 1e300"),
    ("grpo", "dual_clip", "1 0.5 true 1e300"),
    ("grpo", "ddof", "2 true"),
    ("grpo", "std_eps", "-1 true 1e300"),
    ("grpo", "entropy_coef", "-1 true 1e300"),
    ("grpo", "tis_cap", "0.5 true 1e300"),
    ("grpo", "updates_per_rollout", "0 true 10**400"),
    ("grpo", "minibatches", "0 5 true 10**400"),
    ("grpo", "overlong_share", "-0.1 1.1 true"),
    ("grpo", "kl", "{target: 0} {horizon: 0} {decay: 1} {warmup_steps: -1} {target: true}"),
    ("dapo", "max_rounds", "0 true 10**400"),
    ("cispo", "eps_low", "1.1 0 true"),
    ("gspo", "eps_low", "1.1 0 true"),
    ("reinforce", "clip", "1.1 0 true 1e300"),
    ("reinforce_plus_plus", "clip", "1.1 0 true"),
    ("ppo", "gamma", "0 1.1 true"),
    ("ppo", "lam", "-0.1 1.1 true"),
    ("ppo", "value_clip", "0 true 1e300"),
    ("ppo", "critic_learning_rate_ratio", "0 true 1e300"),
    ("dpo", "beta", "0 -1 true 1e300"),
    ("dpo", "label_smoothing", "0.5 -0.1 true"),
    ("reward_model", "noise", "1 -0.1 true"),
    ("rft", "at_most", "0 true 10**400"),
    ("rft", "threshold", "true .nan"),
    ("rft", "prompts", "0 true"),
)

_REWARD_NUMBERS = (
    ("regex, pattern: a", "value", "true .nan .inf"),
    ("regex, pattern: a", "timeout_s", "0 true 1e300"),
    ("regex, pattern: a", "weight", "true .nan x 1e300"),
    ("regex, pattern: a", "gate", "{at_least: true} {otherwise: .nan} x"),
    ("regex, pattern: a", "call", "{timeout_s: 0} {retries: true} {retries: -1} {at_once: 0} {timeout_s: 1e300}"),
    ("repetition", "ngram", "0 true 1.5"),
    ("repetition", "penalty", "1 true"),
    ("soft_overlong, l_cache: 2", "l_max", "0 1 true 10**400"),
    ("math", "timeout_s", "0 true"),
    ("code_tests", "tolerance", "-1 1 true"),
    ("code_tests", "memory_bytes", "0 true 10**400"),
    ("code_tests", "total_timeout_s", "0 true .inf 1e300"),
    ("code_lint", "cost", "0 2 true"),
    ("reward_model, path: model", "batch_tokens", "0 true 10**400"),
    ("reward_model, path: model", "cache_size", "-1 true"),
)


def _numbers() -> Iterator[Case]:
    for setting, values, changes in _NUMBERS:
        for value in values.split():
            yield _number(setting, value, changes, setting.rpartition(".")[2])
    for method, setting, values in _METHOD_NUMBERS:
        for value in _split(values):
            yield _number(f"method.{setting}", value, {"method": {"name": method, "group_size": None}}, setting)
    for reward, setting, values in _REWARD_NUMBERS:
        for value in _split(values):
            written = _evaluated(value)
            yield _override(
                f"number: reward {reward.partition(',')[0]}.{setting}={value}",
                f"reward={{name: {reward}, {setting}: {written}}}",
                "training.steps=1",
                words=(setting,),
            )


def _split(values: str) -> list[str]:
    """Values between spaces, a mapping with its own."""
    return values.replace(": ", ":\0").replace(", ", ",\0").split() if "{" in values else values.split()


def _evaluated(value: str) -> str:
    for power in ("2**63", "10**9", "10**12", "10**400"):
        value = value.replace(power, str(eval(power))) if value in (power, f"[{power}]") else value
    return value.replace("\0", " ")


def _number(setting: str, value: str, changes: Mapping[str, Any], word: str) -> Case:
    tree = merge(RECIPE, changes)
    tree["method"] = {key: inner for key, inner in tree["method"].items() if inner is not None}
    return Case(
        f"number: {tree['method']['name']} {setting}={value}".replace("\0", " "),
        ("run", "recipe.yaml", f"{setting}={_evaluated(value)}"),
        (word,),
        files={"recipe.yaml": json.dumps(tree)},
    )


def _settings() -> Iterator[Case]:
    for name, override, words in (
        ("a number for true", "data.chat=1", ("`data.chat`: write true or false, not 1",)),
        ("a number for false", "model.compiled=0", ("`model.compiled`: write true or false, not 0",)),
        ("true for a number", "training.steps=true", ("`training.steps`: write a number, not true",)),
        ("a number for a text", "data.system=3", ("`data.system`: Input should be a valid string",)),
        ("a number for a stop text", "rollout.stop=[3]", ("`rollout.stop.0`", "valid string")),
        ("an empty stop text", "rollout.stop=['']", ("`rollout.stop.0`", "at least 1 character")),
        ("a stop text that is no list", "rollout.stop=a", ("`rollout.stop`: write a list",)),
        ("an empty run", "run=''", ("`run`: it is empty",)),
        ("a blank run", "run='  '", ("`run`: it is empty",)),
        ("the run is the working directory", "run=.", ("`run`: . has no name of its own",)),
        ("the run is the working directory, written longer", "run=runs/../.", ("`run`", "has no name of its own")),
        ("the run is the root", "run=/", ("`run`: / has no name of its own",)),
        ("the run is the parent", "run=..", ("`run`: .. has no name of its own",)),
        ("the run is a parent", "run=runs/..", ("has no name of its own",)),
        ("the run has NUL", 'run="a\\0b"', ("`run`: it holds the character NUL",)),
        ("the model has NUL", 'model.path="a\\0b"', ("NUL",)),
        ("the data has NUL", 'data={train: "a\\0b"}', ("NUL",)),
        ("the reward has NUL", 'reward="a\\0b"', ("NUL",)),
        ("the template has NUL", 'data.chat_template="a\\0b"', ("NUL",)),
        ("an unknown schedule", "optimizer.schedule=cos", ("`optimizer.schedule`", "'cosine'")),
        ("an unknown dtype", "model.compute_dtype=float16", ("`model.compute_dtype`", "'bfloat16'")),
        ("no targets", "model.lora={targets: []}", ("`model.lora.targets`",)),
        ("unknown targets", "model.lora={targets: [x_proj]}", ("x_proj",)),
        ("a date that is none", "data.date=2024-02-31", ("data.date", "write a date as in 2024-07-26")),
        (
            "columns of no name",
            "data={train: rows.jsonl, columns: {prompt: ''}}",
            ("`data.columns.prompt`: it is empty",),
        ),
        ("a list for columns", "data={train: rows.jsonl, columns: [prompt]}", ("`data.columns`: write a mapping",)),
        ("a method that is null", "method=null", ("`method`: ",)),
        ("a method's name that is null", "method.name=null", ("`method`: a method is a name",)),
        ("a method that is true", "method=true", ("`method`: a method is a name",)),
        ("a method that is a list", "method=[grpo]", ("`method`: a method is a name",)),
        ("an unknown method", "method=gpro", ("unknown method `gpro`. Did you mean `grpo`?",)),
        (
            "a method's unknown setting",
            "method.group_siz=4",
            ("unknown setting `group_siz`. Did you mean `group_size`?",),
        ),
        ("a method of nowhere", "method=nowhere.py:Mine", ("nowhere.py",)),
        ("a best that is no measure", "checkpoint.best=pass@9", ("checkpoint.best",)),
        ("an unknown reward", "reward=exact_anser", ("unknown reward `exact_anser`. Did you mean `exact_answer`?",)),
        ("a reward that is a number", "reward=3", ("`reward`: a reward is a name", "not 3")),
        ("a reward without a name", "reward={pattern: a}", ("a reward needs a name",)),
        ("a reward's unknown setting", "reward={name: regex, patern: a}", ("unknown setting `patern`",)),
        ("no rewards", "reward=[]", ("the list of rewards is empty",)),
        ("a pattern that is none", "reward={name: regex, pattern: '('}", ("invalid regular expression",)),
        ("a negative share", "data={sources: {a: {task: sums, share: -1}}}", ("share",)),
        ("a source's name", "data={sources: {'a b': {task: sums}}}", ("the name of a source has letters",)),
        ("a task and rows", "data.train=rows.jsonl", ("give either `task` (a name) or `train`",)),
        ("neither a task nor rows", "data={task: null}", ("give either `task` (a name) or `train`",)),
    ):
        yield _override(f"setting: {name}", override, words=words)


def _model_changed(change: Make) -> Make:
    return lambda folder: change(folder / "model")


def _json_changed(name: str, **changes: Any) -> Make:
    def change(model: Path) -> None:
        content = {**json.loads((model / name).read_text()), **changes}
        (model / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return _model_changed(change)


def _written(name: str, content: bytes) -> Make:
    return _model_changed(lambda model: (model / name).write_bytes(content) and None)


def _removed(*names: str) -> Make:
    def remove(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return _model_changed(remove)


def _weights_changed(change: Callable[[dict[str, torch.Tensor]], None]) -> Make:
    def rewrite(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        change(weights)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return _model_changed(rewrite)


def _cut(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])


def _an_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "model")
    tiny_folder(folder / "model", "bert")


def _models() -> Iterator[Case]:
    def model(name: str, make: Make, *words: str) -> Case:
        return Case(f"model: {name}", ("run", "recipe.yaml"), words, make=make)

    yield _override("model: not there", "model.path=./modle", words=("no such folder", "Did you mean `model`?"))
    yield _override("model: a file", "model.path=./rows.jsonl", words=("rows.jsonl",))
    yield _override("model: a name that is too long", f"model.path=./{'a' * 300}", words=("aaa",))
    yield model("no configuration", _removed("config.json"), "it has no config.json")
    yield model("a configuration that is no JSON", _written("config.json", b"{"), "model: cannot load this model")
    yield model("a configuration that is a list", _written("config.json", b"[]"), "model: cannot load this model")
    yield model(
        "a configuration that is not UTF-8", _written("config.json", b"\xff\xfe{}"), "model: cannot load this model"
    )
    yield model("an empty configuration", _written("config.json", b"{}"), "model: cannot load this model")
    yield model(
        "an unknown architecture", _json_changed("config.json", model_type="none"), "model: cannot load this model"
    )
    yield model("no heads", _json_changed("config.json", num_attention_heads=0), "model: cannot load this model")
    yield model(
        "layers that are a text", _json_changed("config.json", num_hidden_layers="two"), "model: cannot load this model"
    )
    yield model("more layers than weights", _json_changed("config.json", num_hidden_layers=3), "its files lack")
    yield model("another size", _json_changed("config.json", hidden_size=32), "model: cannot load this model")
    yield model("no weights", _removed("model.safetensors"), "model: cannot load this model")
    yield model("empty weights", _written("model.safetensors", b""), "model: cannot load this model")
    yield model("cut weights", _model_changed(_cut), "model: cannot load this model")
    yield model(
        "weights that are a text", _written("model.safetensors", b"hello" * 100), "model: cannot load this model"
    )
    yield model(
        "a weight that is missing", _weights_changed(lambda w: w.pop("model.norm.weight") and None), "model.norm.weight"
    )
    yield model(
        "a weight of another shape",
        _weights_changed(lambda w: w.update({"model.norm.weight": torch.ones(7)})),
        "model: cannot load this model",
        "model.norm.weight",
    )
    yield model(
        "a weight that is NaN",
        _weights_changed(lambda w: w.update({"model.norm.weight": w["model.norm.weight"] * float("nan")})),
        "NaN",
    )
    yield model(
        "no tokenizer", _removed("tokenizer.json", "tokenizer_config.json"), "model: cannot load this model's tokenizer"
    )
    yield model(
        "a tokenizer that is no JSON", _written("tokenizer.json", b"{"), "model: cannot load this model's tokenizer"
    )
    yield model(
        "a tokenizer that is a list", _written("tokenizer.json", b"[]"), "model: cannot load this model's tokenizer"
    )
    yield model(
        "a tokenizer of another kind",
        _written("tokenizer.json", b'{"version": "1.0"}'),
        "model: cannot load this model's tokenizer",
    )
    yield model(
        "a tokenizer's settings that are no JSON",
        _written("tokenizer_config.json", b"{"),
        "model: cannot load this model's tokenizer",
    )
    yield model("an encoder", _an_encoder, "model:")
    yield model("generation settings that are no JSON", _written("generation_config.json", b"{"), "model:")
    yield _override(
        "model: a reference that is not there",
        "method.beta=0.1",
        "method.kl.path=./none",
        words=("none: not a model folder",),
    )
    yield _changed(
        "model: a critic that is not there",
        {"method": {"name": "ppo", "critic_path": "./none"}},
        "none: not a model folder",
    )
    yield _override(
        "model: a reward model that is not there",
        "reward={name: reward_model, path: ./none}",
        words=("none: not a model folder",),
    )
    yield _override("model: a policy as a reward model", "reward={name: reward_model, path: ./model}", words=("model",))


def _devices() -> Iterator[Case]:
    wanted = {
        "cuda": "PyTorch finds no GPU" if not torch.cuda.is_available() else "",
        "cuda:99": "cuda:99",
        "mps": "mps",
        "meta": "meta",
        "xla": "xla",
        "gpu": "gpu",
        "cdua": "cdua",
        "cpu:1:2": "cpu:1:2",
        "cuda:-1": "cuda:-1",
        "CPU": "CPU",
        "0": "valid string",
    }
    for device, words in wanted.items():
        if words:
            yield _override(f"device: {device}", f"model.device={device}", words=("device", words))
    for device in ("cuda:99", "mps", "cdua"):
        yield _override(
            f"device: {device} of a reward model",
            f"reward={{name: reward_model, path: ./model, device: '{device}'}}",
            words=("device", device),
        )


def _data() -> Iterator[Case]:
    def rows(name: str, content: str | bytes, *words: str, file: str = "given.jsonl", **data: Any) -> Case:
        return _changed(
            f"data: {name}",
            {"data": {"task": None, "train": file, **data}, "reward": "exact_answer"},
            *words,
            files={file: content},
        )

    missing = {"data": {"task": None, "train": "given.jsonl"}, "reward": "exact_answer"}
    yield _changed("data: not there", missing, "given.jsonl: no such file")
    yield rows("empty", "", "given.jsonl")
    yield rows("only line ends", "\n\n\n", "given.jsonl")
    yield rows("no JSON", '{"prompt": "1+1="}\n{"prompt"\n', "given.jsonl:2: not JSON")
    yield rows("a list as a row", "[1]\n", "given.jsonl:1", "must be an object")
    yield rows("a number as a row", "3\n", "given.jsonl:1", "must be an object")
    yield rows("another column", '{"prompts": "1", "answer": "2"}\n', "no column `prompt`")
    yield rows("no answer", '{"prompt": "1+1="}\n', "needs the column 'answer'")
    yield rows("a prompt that is a number", '{"prompt": 3, "answer": "2"}\n', "given.jsonl:1")
    yield rows("a prompt that is null", '{"prompt": null, "answer": "2"}\n', "given.jsonl:1")
    yield rows("an empty prompt", '{"prompt": "", "answer": "2"}\n', "given.jsonl:1")
    yield rows("an answer that is a list", '{"prompt": "1+1=", "answer": ["2"]}\n', "given.jsonl:1", "'answer'")
    yield rows("not UTF-8", b'{"prompt": "\xff", "answer": "2"}\n', "given.jsonl")
    yield rows("UTF-16", '{"prompt": "1+1=", "answer": "2"}\n'.encode("utf-16"), "given.jsonl")
    yield rows(
        "too long for the model", json.dumps({"prompt": "1" * 99, "answer": "2"}) + "\n", "given.jsonl:1: does not fit"
    )
    yield rows("a letter that the model does not know", '{"prompt": "é", "answer": "2"}\n', "given.jsonl:1")
    yield rows("a name of another kind", "x", "given.xyz", file="given.xyz")
    yield rows(
        "a column renamed to one that is not there",
        '{"prompt": "1", "answer": "2"}\n',
        "question",
        columns={"prompt": "question"},
    )
    yield rows("a Parquet file that is none", b"PAR1", "given.parquet", file="given.parquet")
    yield rows("an empty CSV", "", "given.csv", file="given.csv")
    yield _changed(
        "data: held-out rows that are not there",
        {
            "data": {"task": None, "train": "rows.jsonl", "held_out": "none.jsonl"},
            "reward": "exact_answer",
            "evaluation": {"every": 1},
        },
        "none.jsonl: no such file",
    )
    yield _changed("data: a folder without rows", {**missing, "data": {"task": None, "train": "./model"}}, "model")
    yield _changed(
        "data: rows without completions for sft",
        {"method": {"name": "sft", "group_size": None}, "data": {"task": None, "train": "rows.jsonl"}, "rollout": None},
        "completion",
    )


_REWARD_FILES = {
    # What the file of a reward holds, and the words of the error.
    "a syntax error": ("x = 1\ndef f(completion)\n    return 1\n", ("SyntaxError", "line 2")),
    "a missing package": ("import no_such_package\n", ("No module named 'no_such_package'",)),
    "a name that a package lacks": ("from math import sinn\n", ("cannot import name 'sinn'",)),
    "a NameError": ("print(x)\n", ("NameError: name 'x' is not defined", "line 1")),
    "a ZeroDivisionError": ("a = 1\nb = a / 0\n", ("ZeroDivisionError", "line 2")),
    "a KeyError": ("import os\nos.environ['SHARPEN_NOT_THERE']\n", ("KeyError: 'SHARPEN_NOT_THERE'", "line 2")),
    "a file that it lacks": ("open('none.json')\n", ("FileNotFoundError", "none.json")),
    "an endless recursion": ("def g():\n    return g()\ng()\n", ("RecursionError", "line 2")),
    "a MemoryError": ("raise MemoryError\n", ("MemoryError",)),
    "an assertion": ("assert 1 == 2\n", ("AssertionError", "line 1")),
    "an exception of its own": ("class Mine(Exception): pass\nraise Mine('why')\n", ("Mine: why",)),
    "an exception that is no Exception": ("class Mine(BaseException): pass\nraise Mine('why')\n", ("Mine: why",)),
    "a GeneratorExit": ("raise GeneratorExit\n", ("GeneratorExit",)),
    "an exception whose text raises": (
        "class Mine(Exception):\n    def __str__(self): raise ValueError\nraise Mine\n",
        ("Mine", "its text cannot be made"),
    ),
    "an exception whose text recurses": (
        "class Mine(Exception):\n    def __str__(self): return str(self)\nraise Mine\n",
        ("Mine", "its text cannot be made"),
    ),
    "an exception whose text is no text": (
        "class Mine(Exception):\n    def __str__(self): return 3\nraise Mine\n",
        ("Mine", "its text cannot be made"),
    ),
    "an exception with a text of a million letters": (
        "raise ValueError('a' * 10**6)\n",
        ("ValueError: aaa", "more letters"),
    ),
    "a SystemExit": ("import sys\nsys.exit(7)\n", ("ends the program with SystemExit: 7",)),
    "an exit without a code": ("raise SystemExit\n", ("ends the program with SystemExit",)),
    "a null byte": ("x = 1\0\n", ("null bytes",)),
    "no function of that name": ("def g(completion): return 1.0\n", ("has no 'f'",)),
    "a number for a function": ("f = 3\n", ("is a int, not a function",)),
    "an object whose attributes raise": (
        "class Mine:\n    def __getattr__(self, name): raise RuntimeError('no')\nf = Mine()\n",
        ("f",),
    ),
    "a module whose attributes raise": ("def __getattr__(name): raise RuntimeError('no')\n", ("RuntimeError: no",)),
    "a signature that raises": (
        "class Mine:\n    @property\n    def __signature__(self): raise RuntimeError('no')\n    def __call__(self, completion): return 1.0\nf = Mine()\n",
        ("signature", "RuntimeError: no"),
    ),
    "a signature that is none": (
        "class Mine:\n    __signature__ = 3\n    def __call__(self, completion): return 1.0\nf = Mine()\n",
        ("signature",),
    ),
    "no argument": ("def f(): return 1.0\n", ("completion",)),
    "a column that no row has": ("def f(completion, colour): return 1.0\n", ("needs the column 'colour'",)),
    "a class whose construction raises": (
        "class f:\n    def __init__(self): raise RuntimeError('no')\n    def __call__(self, completion): return 1.0\n",
        ("RuntimeError: no",),
    ),
    "a class that needs settings": (
        "class f:\n    def __init__(self, a): pass\n    def __call__(self, completion): return 1.0\n",
        ("missing a required argument: 'a'",),
    ),
}


def _rewards() -> Iterator[Case]:
    for name, (content, words) in _REWARD_FILES.items():
        yield _changed(f"reward: {name}", {"reward": "given.py:f"}, *words, files={"given.py": content})
    yield _changed("reward: not UTF-8", {"reward": "given.py:f"}, "SyntaxError", files={"given.py": b"x = '\xff'\n"})
    yield _override("reward: no such file", "reward=none.py:f", words=("there is no file",))
    yield _override("reward: no such module", "reward=no_such_module:f", words=("No module named 'no_such_module'",))
    yield _override(
        "reward: a folder", "reward=model.py:f", words=("model.py",), make=lambda f: (f / "model.py").mkdir()
    )
    yield _override("reward: no name of a function", "reward='given.py:'", words=("given.py",), files={"given.py": ""})
    yield _override("reward: no name of a file", "reward=':f'", words=(":f",))
    yield _override(
        "reward: an unknown setting",
        "reward={name: given.py:f, colour: red}",
        words=("colour",),
        files={"given.py": "def f(completion): return 1.0\n"},
    )


_RUNNING = {
    "NaN": ("return float('nan')", ("returned nan", "finite number")),
    "infinity": ("return float('inf')", ("returned inf", "finite number")),
    "a text": ("return 'good'", ("returned a str",)),
    "a list": ("return [1.0, 2.0]", ("returned a list",)),
    "a huge integer": ("return 10**400", ("f'", "returned")),
    "nothing": ("return None", ("applied to none",)),
    "an object whose repr raises": ("return Bad()", ("returned a Bad",)),
    "a number whose float raises": ("return BadFloat()", ("BadFloat",)),
    "an exception": ("raise ValueError('why')", ("failed for 8 of 8", "ValueError: why")),
    "an exception whose text raises": ("raise BadError", ("failed for 8 of 8", "BadError", "its text cannot be made")),
    "an exception with a text of a million letters": (
        "raise ValueError('a' * 10**6)",
        ("failed for 8 of 8", "more letters"),
    ),
    "an exception with escape sequences": ("raise ValueError('\\x1b[2Jgone')", ("failed for 8 of 8", "gone")),
    "a recursion": ("return f(completion)", ("failed for 8 of 8", "RecursionError")),
    "an exit": ("raise SystemExit(7)", ("SystemExit",)),
    "an exception that is no Exception": ("raise BadBase", ("BadBase",)),
}
_BAD_CLASSES = """
class Bad:
    def __repr__(self): raise RuntimeError('no repr')
    __str__ = __repr__

class BadFloat(float):
    def __float__(self): raise RuntimeError('no float')
    def __repr__(self): raise RuntimeError('no repr')

class BadError(Exception):
    def __str__(self): raise RuntimeError('no text')
    __repr__ = __str__

class BadBase(BaseException): pass

"""


def _running_rewards() -> Iterator[Case]:
    for name, (body, words) in _RUNNING.items():
        yield _changed(
            f"running reward: {name}",
            {"reward": "given.py:f"},
            *words,
            files={"given.py": f"{_BAD_CLASSES}def f(completion):\n    {body}\n"},
            begins=True,
        )
    yield _changed(
        "running reward: it hangs",
        {"reward": {"name": "given.py:f", "call": {"timeout_s": 0.2, "process": True}}},
        "failed for 8 of 8",
        "0.2",
        files={"given.py": "import time\ndef f(completion): time.sleep(1000)\n"},
        begins=True,
    )
    yield _changed(
        "running reward: its process dies",
        {"reward": {"name": "given.py:f", "call": {"process": True}}},
        "failed for 8 of 8",
        files={"given.py": "import os\ndef f(completion): os._exit(3)\n"},
        begins=True,
    )


def _tasks() -> Iterator[Case]:
    for name, task, words in (
        ("unknown", "arithmetics", ("unknown task `arithmetics`. Did you mean `arithmetic`?",)),
        ("an unknown parameter", "arithmetic?term=3", ("unknown parameter `term`",)),
        ("a parameter twice", "arithmetic?terms=3&terms=4", ("'terms' is given twice",)),
        ("a parameter without a value", "arithmetic?terms", ("name?key=value",)),
        ("too few terms", "arithmetic?terms=1", ("`terms`",)),
        ("terms that are a text", "arithmetic?terms=three", ("`terms`",)),
        ("terms of 400 digits", f"arithmetic?terms={'9' * 400}", ("`terms`",)),
        ("too many rows", "arithmetic?train_size=1000000000000", ("`train_size`",)),
        ("a share above 1", "arithmetic?guess_share=1.5", ("`guess_share`",)),
        ("a share that is NaN", "arithmetic?guess_share=nan", ("`guess_share`",)),
        ("more held-out rows than there are", "arithmetic?terms=2&digits=1&held_out_size=5000", ("held-out problems",)),
        ("a share of sums", "sums?held_out_share=0", ("`held_out_share`",)),
        ("a boolean that is none", "sums?worked_example=maybe", ("`worked_example`",)),
        ("a gym task that is not there", "reasoning_gym:no_such_task", ("no_such_task",)),
        ("a file that is not there", "none.py:Mine", ("none.py",)),
    ):
        yield _override(f"task: {name}", f"data.task={task}", words=words)
    yield _override(
        "task: its file raises",
        "data.task=given.py:T",
        words=("RuntimeError: no",),
        files={"given.py": "raise RuntimeError('no')\n"},
    )
    yield _override(
        "task: its construction raises",
        "data.task=given.py:T",
        words=("RuntimeError: no",),
        files={"given.py": "class T:\n    def __init__(self): raise RuntimeError('no')\n"},
    )
    yield _override("task: it is none", "data.task=given.py:T", words=("not a task",), files={"given.py": "T = 3\n"})


def _parts() -> Iterator[Case]:
    raising = {"given.py": "raise RuntimeError('no')\n"}
    for setting in ("method", "rollout.engine.name", "rollout.turns", "log.loggers"):
        yield _override(
            f"part: the file of {setting} raises", f"{setting}=given.py:f", words=("RuntimeError: no",), files=raising
        )
        yield _override(
            f"part: the file of {setting} is not there", f"{setting}=none.py:f", words=("there is no file",)
        )
    yield _override("part: an unknown engine", "rollout.engine.name=vllm", words=("unknown engine `vllm`",))
    yield _override("part: an engine that is a number", "rollout.engine.name=3", words=("rollout.engine.name",))
    yield _override(
        "part: an engine that is none",
        "rollout.engine.name=given.py:f",
        words=("given.py:f",),
        files={"given.py": "f = 3\n"},
    )
    yield _override(
        "part: an engine whose construction raises",
        "rollout.engine.name=given.py:f",
        words=("RuntimeError: no",),
        files={"given.py": "class f:\n    def __init__(self, *a, **k): raise RuntimeError('no')\n"},
    )
    yield _override(
        "part: settings of the local engine", "rollout.engine.settings={a: 1}", words=("rollout.engine.settings",)
    )
    yield _override(
        "part: turns that are no function",
        "rollout.turns=given.py:f",
        words=("given.py:f",),
        files={"given.py": "f = 3\n"},
    )
    yield _override(
        "part: an unknown logger",
        "log.loggers=[tensorbord]",
        words=("unknown logger `tensorbord`. Did you mean `tensorboard`?",),
    )
    yield _override("part: a logger without a name", "log.loggers=[{project: x}]", words=("a logger is a name",))
    yield _override("part: a logger that is a number", "log.loggers=[3]", words=("a logger is a name",))
    yield _override(
        "part: a logger's wrong setting",
        "log.loggers=[{name: tensorboard, color: red}]",
        words=("unknown setting `color`",),
    )
    yield _override(
        "part: a method that is none", "method=given.py:f", words=("a method is a name",), files={"given.py": "f = 3\n"}
    )
    yield _override(
        "part: a method whose class is abstract",
        "method=given.py:f",
        words=("given.py:f",),
        files={"given.py": "from sharpen.methods import Method\nclass f(Method):\n    name = 'mine'\n"},
    )


def _folders() -> Iterator[Case]:
    yield _override("folder: a file is in the way", "run=rows.jsonl", words=("rows.jsonl is a file",))
    yield _override("folder: a part of the path is a file", "run=rows.jsonl/new", words=("rows.jsonl is a file",))
    yield _override(
        "folder: a name that is too long", f"run=runs/{'a' * 300}", words=("cannot be written: File name too long",)
    )
    yield _override(
        "folder: a path that is too long", f"run={'/'.join(['a' * 200] * 30)}", words=("File name too long",)
    )
    yield _override(
        "folder: a dangling link", "run=link", words=("link",), make=lambda f: (f / "link").symlink_to("none")
    )
    yield _override(
        "folder: a link to itself", "run=link/new", words=("link",), make=lambda f: (f / "link").symlink_to("link")
    )
    yield _override("folder: a file system that takes no files", "run=/proc/new", words=("run: ", "cannot be written"))
    yield _override("folder: the working directory by its name", "run=../here", words=("the working directory",))
    yield _override(
        "folder: it holds a run",
        "run=runs/old",
        words=("already holds a run",),
        files={"runs/old/recipe.yaml": "", "runs/old/metrics.jsonl": '{"step": 1}\n'},
        begins=True,
    )
    yield _override(
        "folder: a checkpoint is in it",
        "run=runs/old",
        words=("already holds a run",),
        files={"runs/old/checkpoints/step_000001/x": ""},
        begins=True,
    )
    yield Case("resume: no run", ("run", "--resume", "model"), ("not a run, it has no recipe.yaml",))
    yield Case("resume: not there", ("run", "--resume", "runs/none"), ("not a run",))
    yield Case("resume: with a recipe", ("run", "recipe.yaml", "--resume", "runs/none"), ("keeps the recipe",))
    yield Case(
        "resume: a damaged recipe",
        ("run", "--resume", "runs/old"),
        ("not a text in UTF-8",),
        files={"runs/old/recipe.yaml": b"\xff"},
        begins=True,
    )


def _disks() -> Iterator[Case]:
    tmpfs = "mkdir -p runs && mount -t tmpfs -o size=SIZE tmpfs runs"
    full = tmpfs.replace("SIZE", "64k") + " && head -c 65536 /dev/zero > runs/full 2> /dev/null"
    read_only = tmpfs.replace("SIZE", "1m") + " && mount -o remount,ro runs"
    command = ("run", "recipe.yaml", "-q")
    yield Case("disk: full at the start", command, ("runs/new", "MiB free"), apart=True, before=full)
    yield Case(
        "disk: too small for a checkpoint",
        command,
        ("a checkpoint takes", "MiB free"),
        apart=True,
        before=tmpfs.replace("SIZE", "40k"),
    )
    yield Case("disk: read-only", command, ("run: ", "Read-only file system"), apart=True, before=read_only)
    yield Case(
        "disk: merging onto a full one",
        ("export", "model", "--to", "hf", "--out", "runs/out"),
        ("runs/out", "MiB free"),
        apart=True,
        before=full,
    )
    yield Case(
        "disk: a recipe onto a full one",
        ("init", "rows.jsonl", "--model", "model", "--out", "runs/new.yaml"),
        ("runs/new.yaml", "MiB free"),
        apart=True,
        before=full,
    )
    yield Case(
        "disk: the demo onto a full one",
        ("demo", "--quick", "--run", "runs/demo"),
        ("MiB free",),
        apart=True,
        before=full,
    )


def _commands() -> Iterator[Case]:
    yield Case("command: eval of nothing", ("eval", "runs/none"), ("runs/none",))
    yield Case("command: chat with nothing", ("chat", "runs/none"), ("runs/none",))
    yield Case("command: merge of nothing", ("merge", "runs/none", "out"), ("runs/none",))
    yield Case("command: merge of what is no adapter", ("merge", "model", "out"), ("adapter",))
    yield Case("command: export of nothing", ("export", "runs/none", "--to", "hf"), ("runs/none",))
    yield Case(
        "command: a dry run of a bad recipe",
        ("run", "recipe.yaml", "--dry-run", "training.steps=0"),
        ("`training.steps`",),
    )
    yield Case("command: init of nothing", ("init", "none.jsonl", "--model", "model"), ("none.jsonl",))
    yield Case("command: data check of nothing", ("data", "check", "none.yaml"), ("none.yaml",))
    yield Case("command: reward check of nothing", ("reward", "check", "none.yaml"), ("none.yaml",))
    yield Case("command: an unknown one", ("trian",), ("trian",))
    yield Case("command: an unknown option", ("run", "recipe.yaml", "--fast"), ("--fast",))
    yield Case("command: no seeds", ("run", "recipe.yaml", "--seeds", "0"), ("--seeds",))
    yield Case(
        "command: two at once without seeds", ("run", "recipe.yaml", "--at-once", "2"), ("--at-once has no effect",)
    )
    yield Case("command: settings of nothing", ("settings", "nothing"), ("nothing",))
    yield Case(
        "command: a template's arguments that are no YAML",
        ("eval", "model", "--chat-template-kwargs", "{"),
        ("chat-template-kwargs",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    chosen = [case for case in cases() if asked.name in case.name]
    failed = 0
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                printed = check(case, Path(folder))
            except AssertionError as error:
                failed += 1
                print(f"FAILED  {error}\n", flush=True)
            else:
                if asked.show:
                    print(f"{case.name}\n{printed}", flush=True)
    print(f"{len(chosen)} bad inputs, {failed} not as they must be")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
