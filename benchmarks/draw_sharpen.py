"""The worker that draws with sharpen's local engine."""

from __future__ import annotations

import torch
from cases import CASES, SEED
from forced_sharpen import engine_of_lengths
from worker import Gate

from sharpen.models.policy import load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.types import Prompt


def main() -> None:
    gate = Gate()
    settings = gate.settings()
    case = CASES[settings["case"]]
    torch.set_num_threads(settings["threads"])
    policy = load_policy(settings["model"], compute_dtype=settings["dtype"], device="cpu")
    gate.loaded()
    engine = engine_of_lengths(case.lengths())(policy)
    gate.ready("sharpen", "torch", "transformers")
    draw_ids = [range(p * case.group, (p + 1) * case.group) for p in range(case.prompts)]
    for step, ids in enumerate(settings["prompt_ids"]):
        prompts = [Prompt(f"{step}:{p}", tuple(tokens), "", {}) for p, tokens in enumerate(ids)]
        drawn = generate(engine, prompts, draw_ids, Sampling(case.limit), seed=SEED + step)
        gate.done(tokens=sum(len(completion.token_ids) for group in drawn for completion in group))


if __name__ == "__main__":
    main()
