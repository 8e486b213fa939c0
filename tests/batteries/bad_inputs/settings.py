"""Settings that are no numbers, and settings that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from batteries.bad_inputs.case import Case, overridden


def settings() -> Iterator[Case]:
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
        ("the run is the working directory", "run=.", ("run: . is the working directory",)),
        ("the run is the working directory, written longer", "run=runs/..", ("run: runs/.. is the working directory",)),
        ("the run is the root", "run=/", ("run: / is the working directory, or holds it",)),
        ("the run is the parent", "run=..", ("run: .. is the working directory, or holds it",)),
        ("the run is the home", "run='~'", ("is your home",)),
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
        ("a method that is a list", "method=[grpo]", ("method=[grpo]: this cannot be set",)),
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
        yield overridden(f"setting: {name}", override, words=words)
