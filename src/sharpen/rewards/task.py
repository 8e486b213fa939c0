"""A task's verifier as a reward."""

from sharpen.data.tasks.task import Task
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.function import FunctionReward


class TaskReward(FunctionReward):
    """The task's `verify` as a reward; majority voting uses the task's answers."""

    def __init__(self, task: Task, *, call: CallSettings | None = None) -> None:
        super().__init__(task.verify, name=task.name.partition("?")[0], call=call)
        self._answer = task.answer
        self._reference = task.reference
        self.has_answer = task.answer is not None
