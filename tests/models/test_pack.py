"""Packing computes a prompt once for its completions and changes no result."""

import pytest
import torch
from torch import Tensor

from sharpen.batch import Batch
from sharpen.models.modules import PLAIN_ARCHITECTURES
from sharpen.models.packing.microbatches import Cost, Planner
from sharpen.models.packing.pack import PackedBatch, PackedRow, pack
from sharpen.models.packing.segments import Segment
from tiny_models import assert_same_gradients, gradients, make_batch, own_logprobs, ragged_batch, tiny_policy, weighted

LOGPROBS = frozenset({"logprobs"})
FREE_ATTENTION = Cost(per_token=1.0, per_pair=0.0)
TEMPERATURE = 0.8


def by_hand() -> Batch:
    """Two completions of a prompt of three tokens, [7, 8] and [9] with its end not trained on; one of a prompt of 1."""
    return make_batch(
        prefixes=(torch.tensor([4, 5, 6]), torch.tensor([3])),
        group_E=torch.tensor([0, 1, 0]),
        tokens_ET=torch.tensor([[7, 8], [2, 1], [9, 5]]),
        mask_ET=torch.tensor([[True, True], [False, True], [True, False]]),
    )


def test_a_row_without_padding_worked_out_by_hand() -> None:
    """Group 0 with two completions, then the one of group 1, which forms one segment with its prompt."""
    packed = pack(by_hand(), [PackedRow(0, (2, 0), 6), PackedRow(1, (1,), 3)], pad_id=0, padded=False, with_last=True)
    assert packed.input_ids_RL.tolist() == [[4, 5, 6, 9, 7, 8, 3, 2, 1]]
    assert packed.position_ids_RL.tolist() == [[0, 1, 2, 3, 3, 4, 0, 1, 2]]
    assert packed.segments is not None
    assert packed.segments.length == 9
    assert packed.segments.segments == (
        Segment(0, 3),
        Segment(3, 4, prompt=0, prompt_end=3),
        Segment(4, 6, prompt=0, prompt_end=3),
        Segment(6, 9),
    )
    # The first token of each completion is predicted from the prompt's last.
    assert places(packed) == {
        (2, 0): (2, 3, 9),
        (0, 0): (2, 4, 7),
        (0, 1): (4, 5, 8),
        (1, 1): (7, 8, 1),
    }


def test_without_last_tokens_a_row_holds_only_predicting_tokens() -> None:
    """The completion [9] is predicted by the prompt's last token alone, so nothing of it is left."""
    packed = pack(by_hand(), [PackedRow(0, (2, 0), 6), PackedRow(1, (1,), 3)], pad_id=0, padded=False, with_last=False)
    assert packed.input_ids_RL.tolist() == [[4, 5, 6, 7, 3, 2]]
    assert packed.position_ids_RL.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert packed.segments is not None
    assert packed.segments.length == 6
    assert packed.segments.segments == (Segment(0, 3), Segment(3, 4, prompt=0, prompt_end=3), Segment(4, 6))
    assert packed.place_N is None
    assert packed.source_N.tolist() == [2, 2, 3, 5]
    assert packed.target_N.tolist() == [9, 7, 8, 1]
    padded = pack(by_hand(), [PackedRow(0, (0,), 5), PackedRow(1, (1,), 3)], pad_id=0, padded=True, with_last=False)
    assert padded.input_ids_RL.tolist() == [[4, 5, 6, 7], [3, 2, 0, 0]]
    assert padded.source_N.tolist() == [2, 3, 5]


def test_padded_rows_count_positions_through_the_padding() -> None:
    packed = pack(by_hand(), [PackedRow(0, (0,), 5), PackedRow(1, (1,), 3)], pad_id=0, padded=True, with_last=True)
    assert packed.segments is None
    assert packed.input_ids_RL.tolist() == [[4, 5, 6, 7, 8], [3, 2, 1, 0, 0]]
    assert packed.position_ids_RL.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert places(packed) == {(0, 0): (2, 3, 7), (0, 1): (3, 4, 8), (1, 1): (6, 7, 1)}


def places(packed: PackedBatch) -> dict[tuple[int, int], tuple[int, int, int]]:
    """For each trained token, by sequence and step: the position that predicts it, its own position and its id."""
    columns = (packed.e_N, packed.t_N, packed.source_N, packed.place_N, packed.target_N)
    return {(b, t): (source, place, target) for b, t, source, place, target in zip(*map(list_of, columns), strict=True)}


def list_of(tensor: Tensor) -> list[int]:
    return tensor.tolist()


PLAIN = [(architecture, tied) for architecture in sorted(PLAIN_ARCHITECTURES) for tied in (False, True)]


@pytest.mark.parametrize(("architecture", "tied"), PLAIN)
def test_a_row_without_padding_equals_the_models_own_forward(architecture: str, tied: bool) -> None:
    policy = tiny_policy(architecture, dtype=torch.float64, tie_word_embeddings=tied)
    assert policy.plain
    same = policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight
    assert same is tied
    batch = ragged_batch(policy.config.vocab_size)
    weights_ET = weighted(batch)

    own_ET = torch.stack(own_logprobs(policy.model, batch, TEMPERATURE))
    (weights_ET * own_ET).sum().backward()
    expected = gradients(policy.model)

    for shared in (True, False):
        policy.model.zero_grad()
        found_ET = torch.zeros_like(own_ET)
        limits = {"tokens_per_microbatch": 40, "shared": shared}
        microbatches = Planner().plan(batch, cost=policy.cost, padded=False, **limits)
        assert len(microbatches) > 1
        # Several groups in one row, and, where prompts are shared, both one completion and several to a prompt.
        assert any(len({row.prefix for row in rows}) > 1 for rows in microbatches)
        several = {len(row.samples) > 1 for rows in microbatches for row in rows}
        assert several == ({True, False} if shared else {False})
        for rows in microbatches:
            logprobs_ET = policy.outputs(batch, rows, TEMPERATURE, LOGPROBS)["logprobs"]
            (weights_ET * logprobs_ET).sum().backward()
            found_ET += logprobs_ET.detach()
        # The norms of these models compute in float32 even here.
        torch.testing.assert_close(found_ET, own_ET.detach() * batch.mask_ET, rtol=0, atol=2e-6)
        assert_same_gradients(gradients(policy.model), expected, 2e-6)


UNLISTED = {
    "mistral with a window": ("mistral", {"sliding_window": 4}),
    "qwen2 with a window": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "gemma3": ("gemma3_text", {"sliding_window": 4}),
    "gpt2": ("gpt2", {}),
    "opt": ("opt", {}),
    # Grouped products of experts have no float64.
    "mixtral": ("mixtral", {"experts_implementation": "eager"}),
    "qwen2_moe": ("qwen2_moe", {"experts_implementation": "eager"}),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_all_other_architectures_are_padded_and_use_their_own_forward(name: str) -> None:
    architecture, settings = UNLISTED[name]
    policy = tiny_policy(architecture, dtype=torch.float64, **settings)
    assert not policy.plain
    batch = ragged_batch(policy.config.vocab_size)
    weights_ET = weighted(batch)
    own_ET = torch.stack(own_logprobs(policy.model, batch, TEMPERATURE))
    (weights_ET * own_ET).sum().backward()
    expected = gradients(policy.model)
    policy.model.zero_grad()
    found_ET = torch.zeros_like(own_ET)
    for rows in Planner().plan(batch, tokens_per_microbatch=60, shared=policy.plain, cost=policy.cost, padded=True):
        assert all(len(row.samples) == 1 for row in rows)
        logprobs_ET = policy.outputs(batch, rows, TEMPERATURE, LOGPROBS)["logprobs"]
        (weights_ET * logprobs_ET).sum().backward()
        found_ET += logprobs_ET.detach()
    torch.testing.assert_close(found_ET, own_ET.detach() * batch.mask_ET, rtol=0, atol=2e-6)
    assert_same_gradients(gradients(policy.model), expected, 2e-6)


def test_a_packed_row_would_be_wrong_with_a_window() -> None:
    """Why PLAIN_ARCHITECTURES exists: attention over segments ignores the window."""
    policy = tiny_policy("mistral", dtype=torch.float64, sliding_window=4)
    batch = ragged_batch(policy.config.vocab_size)
    own_ET = torch.stack(own_logprobs(policy.model, batch, 1.0)).detach() * batch.mask_ET
    policy.model.config.sliding_window = None
    assert policy.plain
    found_ET = torch.zeros_like(own_ET)
    for rows in Planner().plan(batch, tokens_per_microbatch=100, shared=True, cost=FREE_ATTENTION, padded=False):
        found_ET += policy.outputs(batch, rows, 1.0, LOGPROBS)["logprobs"].detach()
    assert (found_ET - own_ET).abs().max() > 0.1


def test_qwen_with_its_window_switched_off_is_plain() -> None:
    assert tiny_policy("qwen2", use_sliding_window=False, sliding_window=4).plain
