"""The worker that draws with transformers' ``generate``."""

from __future__ import annotations

import torch
from cases import CASES
from forced_generate import force_lengths
from transformers import AutoModelForCausalLM, AutoTokenizer
from worker import Gate


def main() -> None:
    gate = Gate()
    settings = gate.settings()
    case = CASES[settings["case"]]
    torch.set_num_threads(settings["threads"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"])).eval()
    gate.loaded()
    force_lengths(model, case, tokenizer.eos_token_id)
    lengths = case.lengths()
    gate.ready("transformers", "torch")
    for ids in settings["prompt_ids"]:
        with torch.inference_mode():
            drawn = model.generate(
                input_ids=torch.tensor(ids),
                attention_mask=torch.ones(case.prompts, case.prompt, dtype=torch.long),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=case.group,
                max_new_tokens=case.limit,
                pad_token_id=tokenizer.pad_token_id,
            )
        rows = drawn[:, case.prompt :].tolist()
        written = [row[: row.index(tokenizer.eos_token_id) + 1] for row in rows]
        tokenizer.batch_decode(written, skip_special_tokens=True)
        if [len(row) for row in written] != lengths:
            raise ValueError("generate did not end its completions where they were to end")
        gate.done(tokens=sum(map(len, written)))


if __name__ == "__main__":
    main()
