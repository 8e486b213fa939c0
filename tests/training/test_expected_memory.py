"""The expected memory of a run is the sum that a person would write down."""

from sharpen.rollout.local.memory import RolloutMemory
from sharpen.training.memory import (
    LIBRARY_BYTES,
    MemoryNumbers,
    MicrobatchNumbers,
    ModelNumbers,
    expected_memory,
    total,
)

POLICY = ModelNumbers(weight_bytes=400, trained_parameters=100, loaded_bytes=60)
REFERENCE = ModelNumbers(weight_bytes=400, loaded_bytes=40)
ROLLOUT = RolloutMemory(kv_bytes=500, copy_bytes=10, kept_copy_bytes=7, pass_bytes=5)


def microbatch(model: str = "policy", *, activations: int = 300, only: bool = False) -> MicrobatchNumbers:
    return MicrobatchNumbers(
        model, activation_bytes=activations, logit_bytes=20, head_gradient_bytes=30, cast_bytes=0, only=only
    )


def numbers(*microbatches: MicrobatchNumbers, **models: ModelNumbers) -> MemoryNumbers:
    return MemoryNumbers(models or {"policy": POLICY, "reference": REFERENCE}, ROLLOUT, microbatches, heap_waste=0.5)


def test_weights_moments_and_the_larger_phase_add_up() -> None:
    found = expected_memory(numbers(microbatch()))
    assert {part.name: part.bytes for part in found.always} == {
        "libraries, once used": LIBRARY_BYTES,
        "weights of the policy": 400,
        "optimizer of the policy": 2 * 4 * 100,
        "weights of the reference": 400,
        "the engine's copy of the weights": 7,
    }
    assert {part.name: part.bytes for part in found.phases["rollout"]} == {
        "keys and values": 500,
        "copy of the weights": 10,
        "logits and prefill": 5,
    }
    training = found.phases["training the policy"]
    assert {part.name: part.bytes for part in training} == {
        "gradients": 400,
        "activations": 300,
        "logits": 20,
        "gradient of the head": 30,
    }
    assert found.peak_phase == "training the policy"
    # What loading left, and half of the larger phase.
    assert found.heap == 60 + 40 + 375
    assert found.total == LIBRARY_BYTES + 400 + 800 + 400 + 7 + 750 + 475


def test_the_rollout_may_be_the_larger_phase() -> None:
    found = expected_memory(numbers(microbatch(activations=10)))
    assert (found.peak_phase, total(found.phases["rollout"])) == ("rollout", 515)


def test_gradients_take_the_place_of_the_activations_of_an_only_microbatch() -> None:
    """While 300 bytes of activations are freed, 400 of gradients come."""
    found = expected_memory(numbers(microbatch(only=True)))
    assert total(found.phases["training the policy"]) == 100 + 300 + 20 + 30


def test_of_a_models_two_losses_the_larger_counts_and_each_model_has_its_own_phase() -> None:
    critic = ModelNumbers(weight_bytes=80, trained_parameters=20)
    found = expected_memory(
        numbers(microbatch(), microbatch(activations=350), microbatch("critic"), policy=POLICY, critic=critic)
    )
    assert total(found.phases["training the policy"]) == 800
    assert total(found.phases["training the critic"]) == 80 + 350


def test_without_a_heap_nothing_is_wasted() -> None:
    """As on a GPU."""
    found = expected_memory(MemoryNumbers({"policy": POLICY}, None, [microbatch()], heap_waste=0.0))
    assert (found.heap, found.total) == (0, LIBRARY_BYTES + 400 + 800 + 750)
