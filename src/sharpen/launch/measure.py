"""Measuring a model on held-out rows, as a run measures itself."""

from __future__ import annotations

from pathlib import Path

from sharpen.data.chat.dates import date_written
from sharpen.data.chat.template import use_template
from sharpen.evaluation.runner import Evaluation
from sharpen.launch.build import held_out_measurement
from sharpen.launch.inputs import HeldOut
from sharpen.launch.models import load_frozen, load_model, load_reference
from sharpen.launch.source_rows import Say
from sharpen.models.policy import Policy
from sharpen.recipe.schema import Recipe
from sharpen.rollout.engines import make_engine
from sharpen.runs.checkpoint_state import fitting, load_state
from sharpen.runs.lookup import find_model
from sharpen.system.user_code import no_exit_from_user_code
from sharpen.training.differences import check_models
from sharpen.training.fingerprint import fingerprint


@no_exit_from_user_code()
def measure(
    recipe: Recipe,
    held_out: HeldOut,
    model: str | Path,
    *,
    say: Say = lambda text: None,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Measure a model on held-out rows (`read_held_out`), as a run of this recipe measures it.

    For a checkpoint of that run these are the run's own numbers, bit for bit on the CPU of the same machine. ``model``
    is anything that a recipe may name as a model.

    Raises:
        SharpenError: something cannot be used, or the model that a checkpoint builds on has changed since.
    """
    for note in held_out.notes:
        say(note)
    named = find_model(str(model))
    path = Path(named.path)
    role = recipe.method.objectives()[0].model
    main = load_model(recipe.model, role, named.path, seed=recipe.seed, trust_remote_code=trust_remote_code)
    use_template(main.tokenizer, recipe.data.chat_template)
    reference, frozen = None, {}
    if held_out.reads != "prompts":
        frozen = load_frozen(recipe.model, recipe.method, main, seed=recipe.seed, trust_remote_code=trust_remote_code)
        reference = load_reference(
            recipe.model,
            recipe.method,
            {role: main},
            path,
            seed=recipe.seed,
            trust_remote_code=trust_remote_code,
        )
    if named.run is not None and (reference is not None or main.adapter is not None or frozen):
        fixed = None if reference is None or reference.moves else reference.policy
        with fitting(path):
            check_models(load_state(path)["fingerprint"], fingerprint((), (), fixed, {role: main}, frozen))
    if held_out.reward is not None:
        held_out.reward.use_tokenizer(main.tokenizer)
    engine = None
    if isinstance(main, Policy) and held_out.reads == "prompts":
        engine = make_engine(recipe.rollout.engine, main)
    try:
        with date_written(recipe.data.date):
            return held_out_measurement(recipe, held_out, main, engine, reference, frozen, say)()
    finally:
        if engine is not None:
            engine.close()
