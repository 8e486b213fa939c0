"""The worker that trains with TRL's GRPOTrainer."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from cases import EPSILON, LEARNING_RATE, MAX_GRAD_NORM, SEED, case_of, reward
from datasets import Dataset
from forced_generate import force_lengths
from places import place_of
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from worker import Gate


class Steps(TrainerCallback):
    """Waits where a step begins and answers where it ends."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._last = 0.0
        self.seconds: dict[str, float] = {}
        self.tokens = 0
        self._waiting = False

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if not self._waiting:
            self._gate.ready("trl", "torch", "transformers")
            self._waiting = True
        self.seconds = {"_generate": 0.0, "_calculate_rewards": 0.0}
        self._last = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        total = time.perf_counter() - self._last
        rollout, rewarded = self.seconds["_generate"], self.seconds["_calculate_rewards"]
        self._gate.done(rollout_s=rollout, reward_s=rewarded, training_s=total - rollout - rewarded, tokens=self.tokens)

    def timed(self, trainer: GRPOTrainer, name: str) -> None:
        """Add up the time that a method of the trainer takes."""
        method: Callable[..., Any] = getattr(trainer, name)

        @functools.wraps(method)
        def around(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = method(*args, **kwargs)
            self.seconds[name] += time.perf_counter() - started
            if name == "_generate":
                self.tokens = sum(len(ids) for ids in result[1])
            return result

        setattr(trainer, name, around)


def rewards(completions: list[str], **_: Any) -> list[float]:
    return [reward(completion) for completion in completions]


def main() -> None:
    gate = Gate()
    settings = gate.settings()
    case = case_of(settings["case"])
    device = settings.get("device", "cpu")
    gate.place = place_of(device, release=settings.get("release", False))
    torch.set_num_threads(settings["threads"])
    torch.set_num_interop_threads(1)
    weights = getattr(torch, settings["weights"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=weights)
    # Weights that are still in a mapped file would be counted as the first step's.
    sum(p.sum() for p in model.parameters())
    gate.loaded()
    force_lengths(model, case, tokenizer.eos_token_id)
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            seed=SEED,
            use_cpu=device == "cpu",
            bf16=settings["autocast"],
            gradient_checkpointing=False,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            warmup_steps=0,
            weight_decay=0.0,
            max_grad_norm=MAX_GRAD_NORM,
            optim=settings["optimizer"],
            max_steps=10**6,
            per_device_train_batch_size=settings["sequences"],
            gradient_accumulation_steps=case.completions // settings["sequences"],
            num_generations=case.group,
            max_completion_length=case.limit,
            num_iterations=1,
            beta=0.0,
            epsilon=EPSILON,
            loss_type="grpo",
            scale_rewards="group",
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **settings.get("arguments", {}),
        )
        steps = Steps(gate)
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=rewards,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": settings["prompts"]}),
            callbacks=[steps],
        )
        for name in ("_generate", "_calculate_rewards"):
            steps.timed(trainer, name)
        trainer.train()


if __name__ == "__main__":
    main()
