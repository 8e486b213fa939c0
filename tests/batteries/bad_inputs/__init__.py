"""Bad inputs from the command line, each with the exit code and the words that a user gets; they leave nothing."""

from batteries.bad_inputs import data, models, numbers, parts, places, recipes, rewards, settings
from batteries.bad_inputs.case import Case, check


def cases() -> list[Case]:
    """All cases, with names of their own."""
    found = [
        *recipes.recipes(),
        *recipes.overrides(),
        *numbers.numbers(),
        *settings.settings(),
        *models.models(),
        *models.devices(),
        *data.data(),
        *rewards.rewards(),
        *rewards.running_rewards(),
        *parts.tasks(),
        *parts.parts(),
        *places.folders(),
        *places.disks(),
        *places.commands(),
    ]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), {name for name in names if names.count(name) > 1}
    return found


__all__ = ["Case", "cases", "check"]
