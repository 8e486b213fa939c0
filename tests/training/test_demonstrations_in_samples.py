"""A demonstration of two samples is trained as the plain sum over its turns, each read by the model's own forward."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from one_thread import one_thread
from plain_forward import plain_gradient, plain_logprobs, plain_model, record_gradients, relative_error
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.rows import read_rows
from sharpen.methods import DPO, SFT, Method
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy, load_policy
from sharpen.models.reference import frozen
from sharpen.training.annotate import Annotator
from sharpen.training.learner import Learner
from sharpen.training.reference import Reference
from sharpen.training.settings import OptimizerSettings
from sharpen.types import Group, Message
from tiny_runs import tiny_start_model

__all__ = ["one_thread"]

STILL = OptimizerSettings(
    learning_rate=1e-12, warmup_steps=0, schedule="constant", weight_decay=0.0, max_grad_norm=None
)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
    "{% else %}={% if loop.last %}#{% endif %}{{ m.content }}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)
"""A ``#`` is all that the assistant thinks, and is dropped from what it reads later."""


def turns(*contents: str) -> list[Message]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


ROWS = [{"messages": turns("1+2", "3", "3-1", "2;2")}, {"messages": turns("4", "5")}]
TURNS = [[("1+2=", "#3"), ("1+2=3<eos>3-1=", "#2;2")], [("4=", "#5")]]
"""What each turn of each row reads and writes; the end of the sequence comes after."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("samples") / "model")


def policy_of(model: Path) -> tuple[Policy, PromptFormat]:
    policy = load_policy(model, device="cpu")
    policy.tokenizer.chat_template = TEMPLATE
    return policy, PromptFormat(policy.tokenizer, policy.context_length)


def said(policy: Policy, model: torch.nn.Module, turn: tuple[str, str]) -> torch.Tensor:
    """log π of each token of a turn."""
    prefix, written = (policy.tokenizer(text)["input_ids"] for text in turn)
    return plain_logprobs(model, prefix, [*written, policy.tokenizer.eos_token_id])


def gradient(
    method: Method, policy: Policy, groups: tuple[Group, ...], monkeypatch: pytest.MonkeyPatch, model: Path
) -> torch.Tensor:
    found = record_gradients(monkeypatch)
    reference = None
    if method.needs_reference:
        reference = Reference(frozen(load_policy(model, device="cpu")), policy, method.kl_settings)
    annotator = Annotator({"policy": policy}, reference, 1.0, MicrobatchLimits(12, True))
    Learner(method, {"policy": policy}, annotator, STILL, steps=1, completion_limit=8).learn([*groups], 1)
    return found[0]


@pytest.mark.parametrize("reduction", ["tokens_of_batch", "per_sequence"])
def test_sft(
    reduction: Literal["tokens_of_batch", "per_sequence"], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, format_ = policy_of(model)
    groups = load_demonstrations(read_rows(ROWS, name="d"), format_).items
    assert [len(group.trajectories[0].samples) for group in groups] == [2, 1]
    found = gradient(SFT(reduction=reduction), policy, groups, monkeypatch, model)
    plain = plain_model(model)
    rows = [torch.cat([said(policy, plain, turn) for turn in row]) for row in TURNS]
    # 3 + 5 tokens of the first row, 3 of the second.
    assert [len(row) for row in rows] == [8, 3]
    mean = torch.cat(rows).mean() if reduction == "tokens_of_batch" else torch.stack([r.mean() for r in rows]).mean()
    assert relative_error(found, plain_gradient(plain, -mean)) < 2e-5


def test_dpo(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """−log σ(β (h_w − h_l)) with h the sum of log π − log π_ref over all turns: at the start its gradient is
    −β/2 ∇ (log π_w − log π_l)."""
    policy, format_ = policy_of(model)
    row = {"prompt": turns("1+2"), "chosen": turns("1+2", "3", "3-1", "2;2")[1:], "rejected": turns("1+2", "4")[1:]}
    [group] = load_preferences(read_rows([row], name="p"), format_).items
    assert [len(t.samples) for t in group.trajectories] == [2, 1]
    found = gradient(DPO(beta=0.2), policy, (group,), monkeypatch, model)
    plain = plain_model(model)
    chosen = sum(said(policy, plain, turn).sum() for turn in TURNS[0])
    rejected = said(policy, plain, ("1+2=", "#4")).sum()
    assert relative_error(found, plain_gradient(plain, -0.1 * (chosen - rejected))) < 2e-5
