"""The text of a recipe, and what is written after it as KEY=VALUE."""

from __future__ import annotations

from collections.abc import Iterator

from batteries.bad_inputs.case import Case, of_recipe, overridden


def recipes() -> Iterator[Case]:
    good = "run: runs/new\nmodel: model\nmethod: grpo\ndata: {task: arithmetic}\n"
    yield Case("recipe: none given", ("run",), ("give a recipe",))
    yield Case("recipe: not there", ("run", "recipes.yaml"), ("recipes.yaml: no such recipe",))
    yield Case("recipe: a folder", ("run", "model"), ("model: a folder, not a recipe",))
    yield Case("recipe: within a file", ("run", "rows.jsonl/recipe.yaml"), ("cannot be read: Not a directory",))
    yield Case("recipe: a name that is too long", ("run", "a" * 300), ("cannot be read: File name too long",))
    yield of_recipe("empty", "", "`run`: Field required", "`model`: Field required", "`method`: Field required")
    yield of_recipe("only comments", "# nothing\n", "`run`: Field required")
    yield of_recipe(
        "Latin-1", "run: café\n".encode("latin-1"), "not a text in UTF-8 (byte 8 is 0xe9)", "save it as UTF-8"
    )
    yield of_recipe("UTF-16", good.encode("utf-16"), "not a text in UTF-8 (byte 0 is 0xff)")
    yield of_recipe("UTF-32", good.encode("utf-32-be"), "not YAML", "special characters are not allowed")
    yield of_recipe("NUL", good + "seed: 1\0\n", "not YAML", "#x0000")
    yield of_recipe("a binary file", bytes(range(256)) * 8, "not a text in UTF-8")
    yield of_recipe("a list", "- run\n- model\n", "a recipe is a mapping of settings")
    yield of_recipe("a text", "grpo\n", "a recipe is a mapping of settings")
    yield of_recipe("a number", "12\n", "a recipe is a mapping of settings")
    yield of_recipe("JSON Lines", '{"run": "a"}\n{"run": "b"}\n', "not YAML: line 2, column 1")
    yield of_recipe("two documents", good + "---\n" + good, "not YAML: line 5", "another document")
    yield of_recipe("a tab", "run: a\n\tmodel: b\n", "not YAML: line 2")
    yield of_recipe("an open bracket", good + "rollout: {stop: [\n", "not YAML: line 6")
    yield of_recipe("an open quote", good + 'seed: "1\n', "not YAML: line 6", "quoted scalar")
    yield of_recipe("an unknown alias", good + "seed: *x\n", "not YAML: line 5, column 7", "undefined alias 'x'")
    yield of_recipe("a bad indentation", "run: a\n  model: b\n", "not YAML: line 2")
    yield of_recipe(
        "a tag of Python's", good + "seed: !!python/object/apply:os.system [true]\n", "python/object/apply:os.system"
    )
    yield of_recipe("an own tag", good + "seed: !mine 1\n", "could not determine a constructor for the tag '!mine'")
    yield of_recipe("nested 10,000 deep", good + "reward: " + "[" * 10_000 + "]" * 10_000, "nested too deeply")
    yield of_recipe(
        "nested 100 deep", good + "reward: " + "[" * 100 + "]" * 100, "`reward.0.0.0` … is nested too deeply"
    )
    bomb = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 10))
    yield of_recipe("a bomb of aliases", "x0: &x0 [a]\n" + bomb + good, "more than 100,000 values")
    yield of_recipe("an alias of itself", good + "reward: &a [*a]\n", "nested too deeply")
    yield of_recipe("a key twice", good + "seed: 1\nrun: runs/other\n", "line 6: `run` is given twice, first in line 1")
    yield of_recipe(
        "a key of a section twice",
        good + "training:\n  steps: 1\n  prompts_per_step: 2\n  steps: 3\n",
        "line 8: `training.steps` is given twice, first in line 6",
    )
    yield of_recipe(
        "a key twice on one line",
        good + "rollout: {stop: [a], stop: [b]}\n",
        "line 5: `rollout.stop` is given twice, first in line 5",
    )
    yield of_recipe(
        "a key of a reward in a list twice",
        good + "reward:\n  - {name: regex, pattern: a, pattern: b}\n",
        "line 6: `reward.0.pattern` is given twice",
    )
    yield of_recipe("a section twice", good + "data: {task: words}\n", "line 5: `data` is given twice, first in line 4")
    yield of_recipe("a list as a key", good + "? [1, 2]\n: 3\n", "line 5: a key is a name, not a list")
    yield of_recipe("a number as a key", good + "7: 1\n", "unknown setting `7`")
    yield of_recipe("null as a key", good + "null: 1\n", "key")
    yield of_recipe("bytes", good.replace("model: model", "model: !!binary aGVsbG8="), "`model`: a bytes is no value")
    yield of_recipe("a set", good + "seed: !!set {a, b}\n", "recipe.yaml:")
    yield of_recipe("an integer of 5,000 digits", good + f"seed: {'9' * 5000}\n", "recipe.yaml:", "4300 digits")
    yield of_recipe(
        "an integer of 400 digits",
        good + f"training: {{steps: {'9' * 400}}}\n",
        "`training.steps`: the number is too large: at most 9.2e+18",
    )
    yield of_recipe(
        "half of a surrogate pair",
        good + 'rollout: {stop: ["\\ud800"]}\n',
        "not YAML: line 5",
        "invalid Unicode character escape",
    )
    yield of_recipe("a reference to no setting", good + "seed: ${sead}\n", "recipe.yaml:", "sead")
    yield of_recipe("a reference to itself", good + "seed: ${seed}\n", "recipe.yaml:")
    yield of_recipe("an unknown resolver", good + "seed: ${nothing:1}\n", "recipe.yaml:", "nothing")
    yield of_recipe("a missing environment variable", good + "seed: ${oc.env:SHARPEN_NOT_THERE}\n", "SHARPEN_NOT_THERE")
    yield of_recipe("a broken reference", good + "seed: '${'\n", "recipe.yaml:")
    yield of_recipe("a mandatory value", good + "seed: ???\n", "recipe.yaml:")
    yield of_recipe(
        "an unknown section", good + "trainer: {steps: 3}\n", "unknown setting `trainer`. Did you mean `training`?"
    )
    yield of_recipe("a section that is a number", good + "training: 3\n", "`training`", "(given: 3)")
    yield of_recipe("a section that is a list", good + "training: [steps]\n", "`training`")
    yield of_recipe("a section that is null", good + "training: null\n", "`training`", "(given: None)")
    yield of_recipe("a value of 100,000 letters", good + f"seed: {'a' * 100_000}\n", "`seed`", "more letters")
    for setting, value in (("run", "runs/new"), ("model", "model"), ("method", "grpo"), ("data", "{task: arithmetic}")):
        yield of_recipe(f"without {setting}", good.replace(f"{setting}: {value}\n", ""), f"`{setting}`: Field required")
        yield of_recipe(
            f"{setting} is null", good.replace(f"{setting}: {value}\n", f"{setting}: null\n"), f"`{setting}`"
        )


def overrides() -> Iterator[Case]:
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
            "data.chat_template: not YAML: unacceptable character #xdcff",
        ),
        ("a path that is a number", "run=7", "`run`: write a path"),
        ("a model that is a number", "model=7", "`model`"),
    ):
        yield overridden(f"override: {name}", override, words=(words,))
    yield overridden(
        "override: a key twice", "training.steps=1", "training.steps=2", words=("`training.steps` is given twice",)
    )
