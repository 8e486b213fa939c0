"""Tasks by name: problems, demonstrations and a verifier."""

from sharpen.data.tasks.registry import TASKS, describe_tasks, is_task, names_task, resolve_task, task_name
from sharpen.data.tasks.task import Task

__all__ = ["TASKS", "Task", "describe_tasks", "is_task", "names_task", "resolve_task", "task_name"]
