"""Where prompts and completions come from."""

from dataclasses import dataclass
from typing import Literal, Protocol

from sharpen.types import Group, Prompt

Reads = Literal["prompts", "demonstrations"]


class World(Protocol):
    """What a source can draw on; the trainer provides it."""

    def next_prompts(self, count: int) -> list[Prompt]: ...

    def next_demonstrations(self, count: int) -> list[Group]: ...

    def sample(self, prompts: list[Prompt], group_size: int) -> list[Group]:
        """Completions drawn from the current policy."""
        ...

    def score(self, groups: list[Group]) -> list[Group]:
        """The same groups with the reward's scores."""
        ...


class Source(Protocol):
    @property
    def reads(self) -> Reads: ...

    def draw(self, world: World, prompts: int) -> list[Group]:
        """The groups of one step."""
        ...


@dataclass(frozen=True)
class Demonstrations:
    """Completions written by somebody else."""

    reads: Reads = "demonstrations"

    def draw(self, world: World, prompts: int) -> list[Group]:
        return world.next_demonstrations(prompts)


@dataclass(frozen=True)
class CurrentPolicy:
    """``group_size`` completions of the current policy for each prompt, scored."""

    group_size: int
    reads: Reads = "prompts"

    def draw(self, world: World, prompts: int) -> list[Group]:
        return world.score(world.sample(world.next_prompts(prompts), self.group_size))
