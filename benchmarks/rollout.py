"""Sampling with sharpen's local engine against transformers' ``generate``, side by side in one run.

    python benchmarks/rollout.py [MODEL]

Both draw 8 completions of 48 tokens for each of 8 prompts, at temperature 1, in bfloat16, alternating. Ends of sequence
are ignored on both sides, so both compute the same number of tokens. Prints the median of each and the ratio.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from sharpen.data.chat import ChatFormat
from sharpen.models.policy import load_policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local import LocalEngine
from sharpen.types import Prompt

PROMPTS, GROUP, TOKENS, REPETITIONS = 8, 8, 48, 5
WORDS = ("cat", "river", "house", "book", "music", "train", "garden", "moon")


def main(path: str) -> None:
    policy = load_policy(path, compute_dtype="bfloat16")
    policy.eos_ids = frozenset()
    chat = ChatFormat(policy.tokenizer, {})
    texts = [f"Write one short sentence that contains the word {word}." for word in WORDS[:PROMPTS]]
    ids = [chat.prompt_ids([{"role": "user", "content": text}]) for text in texts]
    prompts = [Prompt(str(i), tokens, text, {}) for i, (tokens, text) in enumerate(zip(ids, texts, strict=True))]
    engine = LocalEngine(policy)
    draw_ids = [range(i * GROUP, (i + 1) * GROUP) for i in range(PROMPTS)]

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
    width = max(map(len, ids))
    padded = torch.tensor([[policy.pad_id] * (width - len(tokens)) + list(tokens) for tokens in ids])
    mask = torch.tensor([[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in ids])

    def ours() -> None:
        engine.generate(prompts, draw_ids, Sampling(TOKENS), seed=0)

    def theirs() -> None:
        with torch.inference_mode():
            model.generate(
                input_ids=padded,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                num_return_sequences=GROUP,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
                pad_token_id=policy.pad_id,
            )

    seconds: dict[str, list[float]] = {"sharpen": [], "generate": []}
    contestants: tuple[tuple[str, Callable[[], None]], ...] = (("sharpen", ours), ("generate", theirs))
    for repetition in range(REPETITIONS + 1):
        for name, draw in contestants:
            started = time.perf_counter()
            draw()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    drawn = PROMPTS * GROUP * TOKENS
    for name, times in seconds.items():
        print(f"{name:9} {drawn / statistics.median(times):7.0f} tokens/s   {[round(t, 2) for t in times]}")
    ratios = [b / a for a, b in zip(seconds["sharpen"], seconds["generate"], strict=True)]
    print(f"sharpen is {statistics.median(ratios):.2f} times as fast (median of {REPETITIONS} pairs)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "models/SmolLM2-135M-Instruct")
