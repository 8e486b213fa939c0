"""What a recipe is to do → its settings, section by section."""

from __future__ import annotations

from sharpen.scaffold.choose import Choices
from sharpen.scaffold.draft import Draft
from sharpen.scaffold.holding_out import how_to_hold_out, shared_prompts
from sharpen.scaffold.sizes import batch_size, known_size, learning_rate, step_count

GROUP_SIZE = 8
WORTH_COMPUTE_DTYPE = 20e6
"""Smaller models gain little from bfloat16."""

WHY = {
    "grpo": "samples completions and makes those with a higher reward likelier",
    "sft": "makes the completions of the rows likelier",
    "dpo": "makes the better completion likelier than the worse one",
    "process_reward_model": "trains a model that says whether a step is right",
}

NO_REWARD = """\
The recipe does not run without a reward, and no column says which completions are right.
Write one in rewards.py and take the # off the last of these lines (docs/rewards.md):

    def reward(completion, **row):        # row has the columns
        return float("yes" in completion)

reward: rewards.py:reward"""


def draft_of(choices: Choices, run: str) -> Draft:
    """The settings of a recipe for the run folder ``run``."""
    draft = Draft()
    draft.set("run", run)
    _model(draft, choices)
    _method(draft, choices)
    _data(draft, choices)
    _reward(draft, choices)
    _rollout(draft, choices)
    _optimizer(draft, choices)
    steps = _training(draft, choices)
    measured = choices.source.held_out_rows is not None
    if measured:
        _evaluation(draft, choices, steps)
    draft.set("checkpoint.every_minutes", 10, "what a crash may cost")
    if measured and choices.samples:
        draft.set("checkpoint.best", "pass@1", "also keep the checkpoint that was best on the held-out rows")
    if choices.samples:
        draft.set("log.tokens_every", max(1, steps // 5), "with what the training did to each token")
    return draft


def _model(draft: Draft, choices: Choices) -> None:
    model = choices.model
    if not choices.model_given:
        draft.doubt("no --model was given: this is a small one to begin with", inside="model")
    if not model.at_hand:
        draft.doubt(
            "this model is not on this machine: lengths are estimated from characters, and whether it has a chat "
            "template from its name. `--model` with a folder looks at it",
            inside="model",
        )
    draft.set("model.path", model.name, known_size(model))
    if model.parameters is None or model.parameters >= WORTH_COMPUTE_DTYPE:
        draft.set("model.compute_dtype", "auto", "bfloat16 where it is native; weights stay float32")
    if choices.lora:
        draft.note(f"Training all weights would not fit into {choices.machine}.", inside="model")
        draft.set("model.lora.rank", 16)
        draft.set("model.lora.alpha", 32)


def _method(draft: Draft, choices: Choices) -> None:
    for doubt in choices.findings.unsure:
        draft.doubt(doubt, inside="method")
    draft.set("method.name", choices.method, WHY[choices.method])
    if choices.samples:
        draft.set("method.group_size", GROUP_SIZE, "completions of a prompt, compared with each other")
    if choices.method == "dpo":
        draft.set("method.beta", 0.1, "strength of the tie to the initial policy")


def _data(draft: Draft, choices: Choices) -> None:
    source, findings = choices.source, choices.findings
    if source.task is not None:
        draft.set("data.task", source.train, "prompts, held-out prompts and a verifier")
    else:
        for note in source.rows.notes:
            draft.note(note, inside="data")
        draft.set("data.train", source.train, f"{len(source.rows):,} rows")
        _held_out(draft, choices)
        for name, column in findings.columns.items():
            draft.set(f"data.columns.{name}", column)
    if choices.chat:
        draft.set("data.chat", True, "the plain text prompts become users' messages")
    if choices.system is not None:
        if findings.has_system:
            draft.doubt(
                "rows with a system message of their own do not get this one, so their model is not told this",
                inside="data",
            )
        draft.set("data.system", choices.system, "what the reward expects")
    if findings.step_separator is not None:
        draft.set("data.step_separator", findings.step_separator, "what ends a step")
    if choices.too_long:
        draft.doubt(
            f"{choices.too_long:,} of {choices.looked_at:,} rows are too long for the model's context of "
            f"{choices.model.context:,} tokens",
            inside="data",
        )
        draft.set("data.overlong", "drop", "leaves them out")


def _held_out(draft: Draft, choices: Choices) -> None:
    source = choices.source
    if source.held_out is None or source.held_out_rows is None:
        if source.left_out is not None:
            draft.doubt(source.left_out, inside="data")
        draft.note(how_to_hold_out(source), inside="data", verbatim=True)
        return
    shared = shared_prompts(source.rows, source.held_out_rows, choices.findings.asked)
    if shared:
        draft.doubt(f"{shared:,} held-out rows have a prompt that is trained on too", inside="data")
    draft.set("data.held_out", source.held_out, f"{len(source.held_out_rows):,} rows to measure on")


def _reward(draft: Draft, choices: Choices) -> None:
    if choices.reward is not None:
        settings = choices.reward.settings
        if choices.reward.unsure is not None:
            draft.doubt(choices.reward.unsure)
        if settings["name"] == "math" and settings.get("answer_from") == "boxed":
            draft.doubt("plain text prompts must themselves ask for the answer in \\boxed{}")
        if len(settings) == 1:
            draft.set("reward", settings["name"], choices.reward.why)
        else:
            for key, value in settings.items():
                draft.set(f"reward.{key}", value, choices.reward.why if key == "name" else "")
    elif choices.samples and choices.source.task is None:
        draft.missing = (
            "It does not run yet: no column says which completions are right. Write a reward function, "
            "and take the # off `# reward: rewards.py:reward` in the recipe."
        )
        draft.note(NO_REWARD, verbatim=True)


def _rollout(draft: Draft, choices: Choices) -> None:
    completions = choices.completions
    if completions is None:
        return
    if completions.unsure is not None:
        draft.doubt(completions.unsure, inside="rollout")
    draft.set("rollout.max_new_tokens", completions.max_new_tokens, completions.why)


def _optimizer(draft: Draft, choices: Choices) -> None:
    parameters = choices.model.parameters
    if parameters is None:
        draft.doubt("the model's size is not known: small models take a higher rate", inside="optimizer")
    rate = learning_rate(choices.method, parameters, lora=choices.lora)
    draft.set("optimizer.learning_rate", rate, "usual for a model of this size" if parameters is not None else "")
    if not choices.samples:
        draft.set("optimizer.schedule", "cosine")


def _training(draft: Draft, choices: Choices) -> int:
    rows = len(choices.source.rows)
    batch = batch_size(choices.method, rows, choices.machine)
    steps = step_count(choices.method, rows, batch, choices.machine)
    epochs = steps * batch / rows
    draft.set("training.steps", steps, f"each row {epochs:.1f} times" if epochs >= 1 else f"{epochs:.0%} of the rows")
    draft.set(
        "training.prompts_per_step", batch, f"{batch * GROUP_SIZE} completions" if choices.samples else "rows of a step"
    )
    return steps


def _evaluation(draft: Draft, choices: Choices, steps: int) -> None:
    assert choices.source.held_out_rows is not None
    rows = len(choices.source.held_out_rows)
    draft.set("evaluation.every", max(1, steps // 6), "steps between measurements on the held-out rows")
    draft.set("evaluation.prompts", min(rows, 200 if choices.machine.gpu else 100), f"of {rows:,}")
    if choices.samples:
        draft.set("evaluation.n", 4, "completions of each prompt")
        draft.set("evaluation.k", [1, 4], "pass@1 and pass@4")
