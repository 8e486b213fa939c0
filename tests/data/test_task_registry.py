import pytest

from sharpen.data.tasks import TASKS, resolve_task
from sharpen.data.tasks.arithmetic import Arithmetic
from sharpen.errors import RecipeError


def test_parameters_reach_the_task():
    task = resolve_task("arithmetic?terms=4&wrong_step_share=0.1")
    assert task == Arithmetic(terms=4, wrong_step_share=0.1)
    assert resolve_task("arithmetic") == Arithmetic()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "arithmetics",
            r"unknown task `arithmetics`\. Did you mean `arithmetic`\? Known: arithmetic, sums, words",
        ),
        ("arithmetic?term=4", r"arithmetic\?term=4: unknown parameter `term`\. Did you mean `terms`\?"),
        ("arithmetic?terms=four", "`terms`: Input should be a valid integer"),
        ("arithmetic?terms=1", "`terms`: Input should be greater than or equal to 2"),
        ("arithmetic?wrong_step_share=nan", "`wrong_step_share`: Input should be a finite number"),
        ("arithmetic?terms", r"parameters are written name\?key=value&key=value"),
        ("arithmetic?terms=3&terms=4", "the parameter 'terms' is given twice"),
        ("words?answer=x", "unknown parameter `answer`"),
    ],
)
def test_bad_names_and_parameters(spec, message):
    with pytest.raises(RecipeError, match=message):
        resolve_task(spec)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_deterministic_and_named(name):
    first, second = resolve_task(name), resolve_task(name)
    assert first.name == name
    assert list(first.train_rows()) == list(second.train_rows())
    assert list(first.held_out_rows()) == list(second.held_out_rows())
    assert first.held_out_rows().row_id(0) == f"{name}/held_out:1"


@pytest.mark.parametrize("name", ["sums", "words"])
def test_tasks_of_prompts_only_bring_nothing_to_imitate(name):
    task = resolve_task(name)
    parts = (task.demonstrations, task.preferences, task.step_labels)
    assert [part() for part in (*parts, task.held_out_preferences, task.held_out_step_labels)] == [None] * 5
