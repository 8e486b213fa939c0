"""Tasks by name: problems, demonstrations and a verifier."""

from sharpen.data.tasks.registry import TASKS, describe_tasks, resolve_task
from sharpen.data.tasks.task import Task

__all__ = ["TASKS", "Task", "describe_tasks", "resolve_task"]
