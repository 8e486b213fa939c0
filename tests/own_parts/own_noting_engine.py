"""An engine from outside the package: the local one, which notes what it drew."""

from pathlib import Path

from sharpen.models.policy import Policy
from sharpen.rollout.engine import FinishedRequest
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.settings import EngineSettings


class NotingEngine(LocalEngine):
    def __init__(self, settings: EngineSettings, policy: Policy) -> None:
        super().__init__(policy)
        self.notes = Path(settings.settings["notes"])

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        finished = super().next_finished(at_least)
        with self.notes.open("a") as file:
            file.writelines(f"{request.text}\n" for request in finished)
        return finished
