"""A model as a plain Hugging Face folder, and its comparison with the model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GenerationConfig,
)

from sharpen.exporting.probes import (
    TEXTS,
    Difference,
    difference,
    plain_logprobs,
    plain_scores,
    policy_logprobs,
    probe_tokens,
)
from sharpen.exporting.report import Checks
from sharpen.models.dtype import SavedDtype
from sharpen.models.model import Model
from sharpen.models.policy import VALUE_HEAD, Policy, load_policy
from sharpen.models.progress_bars import without_load_report, without_progress_bars
from sharpen.models.scorer import Scorer
from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local.engine import LocalEngine
from sharpen.types import Prompt

EQUAL_NATS = 1e-4
"""Between two ways of computing the same log-probability or score in float32."""
MEAN_NATS = {torch.float32: EQUAL_NATS, torch.bfloat16: 0.25, torch.float16: 0.05}
"""The largest mean difference of log-probabilities that rounding the weights to a type may make."""
NEAR_TIE_NATS = 1e-3
GREEDY_TOKENS = 24


def known_answers(model: Model) -> tuple[list[list[int]], list[Tensor]]:
    """Tokens, and what the model says of them: log-probabilities, or scores."""
    rows = probe_tokens(model.tokenizer, model.config.get_text_config().vocab_size, model.context_length)
    if isinstance(model, Policy):
        return rows, policy_logprobs(model, rows)
    return rows, plain_scores(model.model, rows)


def write_folder(model: Model, folder: Path, dtype: torch.dtype) -> None:
    """Write the model in ``dtype``, without the value head, which nothing but training reads."""
    model.save(folder, type_name(dtype))
    (folder / VALUE_HEAD).unlink(missing_ok=True)


def type_name(dtype: torch.dtype) -> SavedDtype:
    found: SavedDtype = str(dtype).removeprefix("torch.")  # type: ignore[assignment]
    return found


def reloaded(model: Model, folder: Path, *, dtype: Any, trust_remote_code: bool) -> Any:
    """The folder by transformers alone."""
    auto: Any = AutoModelForCausalLM
    if isinstance(model, Scorer):
        auto = AutoModelForSequenceClassification if model.kind == "sequence" else AutoModelForTokenClassification
    with without_progress_bars(), without_load_report():
        return auto.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code).eval()


def check_folder(
    model: Model,
    rows: list[list[int]],
    expected: list[Tensor],
    folder: Path,
    dtype: torch.dtype,
    checks: Checks,
    *,
    trust_remote_code: bool,
) -> Difference:
    """Compare a folder with the model whose weights it holds and with ``expected``, what that said before rounding.

    Raises ModelError where they differ by more than rounding.
    """
    name = type_name(dtype)
    plain = reloaded(model, folder, dtype="auto", trust_remote_code=trust_remote_code)
    own, read = model.model.state_dict(), plain.state_dict()
    # Some weights stay in float32 in every type.
    same = own.keys() == read.keys() and all(torch.equal(own[key].cpu().to(read[key].dtype), read[key]) for key in own)
    checks.hold(same, f"the {len(own)} weights that transformers reads are those of the model in {name}, bit for bit")
    checks.hold(
        plain.config.dtype in (dtype, name) and next(plain.parameters()).dtype == dtype,
        f"config.json says {name}",
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    checks.hold(
        [tokenizer(text)["input_ids"] for text in TEXTS] == [model.tokenizer(text)["input_ids"] for text in TEXTS]
        and tokenizer.chat_template == model.tokenizer.chat_template,
        "the tokenizer gives the same tokens, with the same chat template",
    )
    plain.float()
    if not isinstance(model, Policy):
        found = difference(plain_scores(plain, rows), expected)
        checks.hold(
            found.largest <= EQUAL_NATS or dtype != torch.float32,
            f"scores in {name} differ from the model's by {found}",
        )
        return found
    found = difference(plain_logprobs(plain, rows), expected)
    bound = f"at most {MEAN_NATS[dtype]:g} on average"
    checks.hold(found.mean <= MEAN_NATS[dtype], f"log-probabilities differ by {found} nats ({bound})")
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    saved = {ends} if isinstance(ends, int) else set(ends or ())
    checks.hold(saved == set(model.eos_ids), f"generation_config.json has every end of sequence: {sorted(saved)}")
    _check_greedy(plain, folder, rows, checks, trust_remote_code=trust_remote_code)
    return found


def _check_greedy(plain: Any, folder: Path, rows: list[list[int]], checks: Checks, *, trust_remote_code: bool) -> None:
    """transformers' greedy `generate` writes what sharpen's engine writes with the same folder, ends included."""
    policy = load_policy(folder, device="cpu", compiled=False, trust_remote_code=trust_remote_code)
    room = policy.context_length - GREEDY_TOKENS
    starts = [row[: min(16, room)] for row in rows if room > 1]
    if not starts:
        checks.not_checked.append(f"greedy decoding: the context is too short for {GREEDY_TOKENS} tokens")
        return
    prompts = [Prompt(str(i), tuple(row), "", {}) for i, row in enumerate(starts)]
    engine = LocalEngine(policy)
    try:
        sampling = Sampling(GREEDY_TOKENS, temperature=0.0)
        written = [t.token_ids for (t,) in generate(engine, prompts, [[i] for i in range(len(prompts))], sampling, 0)]
    finally:
        engine.close()
    stopped = ties = 0
    for start, own in zip(starts, written, strict=True):
        ids = torch.tensor([start], device=plain.device)
        with torch.no_grad():
            whole = plain.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=GREEDY_TOKENS,
                pad_token_id=policy.pad_id,
            )
        theirs = tuple(whole[0, len(start) :].tolist())
        stopped += own[-1] in policy.eos_ids
        if theirs != own and _near_tie(plain, start, own, theirs):
            ties += 1
        else:
            checks.hold(theirs == own, "greedy decoding")
            checks.checked.pop()
    checks.checked.append(
        f"greedy decoding by transformers writes the same {len(starts)} answers as sharpen's engine"
        + (f", but for near ties in {ties}" if ties else "")
        + (f"; {stopped} of them ended, the others reached {GREEDY_TOKENS} tokens")
    )


def _near_tie(plain: Any, start: list[int], own: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    """Whether the first tokens that differ are about equally likely, so that rounding decides."""
    at = next((i for i, (a, b) in enumerate(zip(own, theirs, strict=False)) if a != b), None)
    if at is None:
        return False
    with torch.no_grad():
        logprobs = plain(input_ids=torch.tensor([[*start, *own[:at]]])).logits[0, -1].log_softmax(dim=-1)
    return bool((logprobs[own[at]] - logprobs[theirs[at]]).abs() <= NEAR_TIE_NATS)
