"""How much memory a run is expected to need at its peak, from counted bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sharpen.rollout.local.memory import RolloutMemory

FLOAT32 = 4
ADAM_MOMENTS = 2
LIBRARY_BYTES = 48 * 2**20
"""What PyTorch and its libraries take when they are first used, beyond importing them. Measured."""
HEAP_WASTE = 0.15
"""Share of what a phase allocates and frees again that glibc's heap cannot use a second time: an aligned block does not
fit into a hole of exactly its size. Fitted to the runs in benchmarks/RESULTS.md."""


@dataclass(frozen=True, slots=True)
class ModelNumbers:
    """A model: the bytes of its weights, and how many of its parameters are trained.

    ``loaded_bytes`` is what loading it leaves behind on the heap, beside its weights.
    """

    weight_bytes: int
    trained_parameters: int = 0
    loaded_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MicrobatchNumbers:
    """The largest micro-batch of an optimizer step of the model of that name, in bytes.

    ``activation_bytes`` are saved for the backward pass; ``logit_bytes`` is a chunk of logits, ``head_gradient_bytes``
    the gradient of the head before it is added to the others; ``cast_bytes`` are weights rounded for this pass.
    ``only`` says that the step has no other, so that gradients take the place of the activations that are freed.
    """

    model: str
    activation_bytes: int
    logit_bytes: int
    head_gradient_bytes: int
    cast_bytes: int
    only: bool = False


@dataclass(frozen=True, slots=True)
class MemoryNumbers:
    """What `expected_memory` needs to know: models by name, and a micro-batch for every loss."""

    models: Mapping[str, ModelNumbers]
    rollout: RolloutMemory | None
    microbatches: Sequence[MicrobatchNumbers]
    heap_waste: float = HEAP_WASTE
    """0 where the memory is a GPU's, whose allocator is another."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of memory, and what takes them."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ExpectedMemory:
    """What is there all the time, what each phase adds, and the peak: the first with the largest of the second.

    ``heap`` is what the peak takes beside these: memory that is free and cannot be used.
    """

    always: tuple[Part, ...]
    phases: Mapping[str, tuple[Part, ...]]
    heap: int

    @property
    def peak_phase(self) -> str | None:
        """The phase that takes most."""
        return max(self.phases, key=lambda name: total(self.phases[name]), default=None)

    @property
    def total(self) -> int:
        phase = self.peak_phase
        return total(self.always) + (0 if phase is None else total(self.phases[phase])) + self.heap


def total(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)


def expected_memory(numbers: MemoryNumbers) -> ExpectedMemory:
    """The bytes of a run at its peak, part by part.

    peak = Σ (weights + 2 moments) + copies that stay + max(rollout, optimizer step of each model) + heap. Moments and
    gradients are in float32. The optimizer step has the gradients of the model's trained weights and one micro-batch;
    if it has no other, gradients take the place of its activations. The heap adds what loading leaves behind and a
    share of the largest phase.
    """
    always = [Part("libraries, once used", LIBRARY_BYTES)]
    phases: dict[str, tuple[Part, ...]] = {}
    for name, model in numbers.models.items():
        always.append(Part(f"weights of the {name}", model.weight_bytes))
        if model.trained_parameters:
            moments = ADAM_MOMENTS * FLOAT32 * model.trained_parameters
            always.append(Part(f"optimizer of the {name}", moments))
    if (rollout := numbers.rollout) is not None:
        if rollout.kept_copy_bytes:
            always.append(Part("the engine's copy of the weights", rollout.kept_copy_bytes))
        phases["rollout"] = _parts(
            {
                "keys and values": rollout.kv_bytes,
                "copy of the weights": rollout.copy_bytes,
                "logits and prefill": rollout.pass_bytes,
            }
        )
    for microbatch in numbers.microbatches:
        gradients = FLOAT32 * numbers.models[microbatch.model].trained_parameters
        if microbatch.only:
            gradients = max(0, gradients - microbatch.activation_bytes)
        parts = _parts(
            {
                "gradients": gradients,
                "activations": microbatch.activation_bytes,
                "logits": microbatch.logit_bytes,
                "gradient of the head": microbatch.head_gradient_bytes,
                "weights in bfloat16": microbatch.cast_bytes,
            }
        )
        phase = f"training the {microbatch.model}"
        phases[phase] = max(phases.get(phase, ()), parts, key=total)
    largest = max(map(total, phases.values()), default=0)
    left = sum(model.loaded_bytes for model in numbers.models.values()) if numbers.heap_waste else 0
    return ExpectedMemory(tuple(always), phases, left + round(numbers.heap_waste * largest))


def _parts(sizes: Mapping[str, int]) -> tuple[Part, ...]:
    return tuple(Part(name, size) for name, size in sizes.items() if size)
