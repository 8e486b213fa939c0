"""A plain Python function as a reward."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import Parameter
from numbers import Real
from typing import Any, get_args

from sharpen.errors import RewardError
from sharpen.rewards.execution.calls import CallResult, Calls
from sharpen.rewards.execution.event_loop import run_coroutine
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.reward import NOT_COMPUTED, Reward, Wanted, sample_name
from sharpen.rewards.verifier import Verifier, is_missing
from sharpen.suggest import did_you_mean
from sharpen.system.user_code import describe
from sharpen.types import Group, Prompt, Refused, Row, Score, Trajectory

RewardFunction = Callable[..., float | Awaitable[float | None] | None]

ASYNC_AT_ONCE = 16
"""Concurrent calls of an async function that does not say how many."""

TRAJECTORY = "trajectory"
"""The parameter that gets the whole trajectory."""

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class FunctionReward(Reward):
    """Calls ``function(completion, **row)`` once for each trajectory.

    ``completion`` is the text of the model's last answer, passed to the parameter of that name, or to the first one if
    there is none. A function with a parameter named ``trajectory`` gets the whole `Trajectory` there; the text is then
    passed only to a parameter named ``completion``, if there is one.
    Columns of the row are passed as keywords: those that the signature names, or all of them if it has
    ``**kwargs``. A column called like the completion's own parameter is not passed. ``settings`` are passed
    always and win over columns. ``call`` says how it is called, see `CallSettings`: with a time limit, in another
    thread, one call after another unless the function has an attribute ``at_once``. An ``async def`` function, or an
    object with such a ``__call__``, is awaited on an event loop that all async rewards share, `ASYNC_AT_ONCE` calls
    concurrently by default.

    No column may be called ``trajectory`` if the function takes one.

    The function returns a number (bool, int, float, a numpy scalar, a tensor of one element) or None where
    the reward does not apply. Raises `RewardError` at construction if it cannot be called so, and while
    scoring if it returns anything else, NaN or infinity. What the function itself raises is recorded with
    the sample.

    Where the function has an attribute ``answer`` (completion → answer) or ``reference`` (row → a right completion),
    these are the reward's.
    """

    reads_tokens = False

    def __init__(
        self,
        function: RewardFunction,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        call: CallSettings | None = None,
    ) -> None:
        self.function = function
        self.name = name or _name_of(function)
        self.settings = dict(settings or {})
        parameters = _parameters(function, self.name)
        self._takes_trajectory = _takes_trajectory(parameters, self.name)
        self._completion = _completion_parameter(parameters, self.name, self._takes_trajectory)
        if self._takes_trajectory:
            self.reads_tokens = True
        self._takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in _NAMED and not self._is_own(p.name)]
        self._taken = frozenset(p.name for p in named)
        unknown = sorted(name for name in self.settings if not self.takes(name))
        if unknown:
            raise RewardError(
                f"reward {self.name!r} takes no setting {unknown[0]!r}.{did_you_mean(unknown[0], self._taken)}"
            )
        if isinstance(function, Verifier):
            self.required: tuple[str, ...] = function.columns
        else:
            self.required = tuple(p.name for p in named if p.default is Parameter.empty and p.name not in self.settings)
        self._nullable = frozenset(p.name for p in named if p.default is not Parameter.empty or _takes_none(p))
        check_row = getattr(function, "check_row", None)
        self._check_row: Callable[[Row], None] | None = check_row if callable(check_row) else None
        self.call = call or CallSettings()
        self._is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
        self.at_once = self.call.at_once or _at_once(function, self.name, ASYNC_AT_ONCE if self._is_async else 1)
        answer = getattr(function, "answer", None)
        self._answer: Callable[[str], str | None] | None = answer if callable(answer) else None
        reference = getattr(function, "reference", None)
        self._reference: Callable[[Row], str | None] | None = reference if callable(reference) else None
        self.has_answer = bool(getattr(function, "has_answer", self._answer is not None))

    @property
    def part_names(self) -> tuple[str, ...]:
        return (self.name,)

    def check_columns(self, columns: Collection[str], where: str) -> None:
        for column in self.required:
            if column not in columns:
                raise RewardError(
                    f"reward {self.name!r} needs the column {column!r}, which {where} does not have; "
                    f"its columns are: {', '.join(sorted(columns)) or 'none'}.{did_you_mean(column, columns)} If "
                    f"another column holds it, say which: `data.columns: {{{column}: COLUMN}}`"
                )
        if self._takes_trajectory and TRAJECTORY in columns:
            raise RewardError(
                f"reward {self.name!r} takes the whole trajectory in its parameter {TRAJECTORY!r}, but {where} has a "
                "column of that name: rename one of them"
            )

    def check_row(self, row: Row, where: str) -> None:
        for column in self.required:
            if column not in row:
                raise RewardError(
                    f"{where}: no column {column!r}, which other rows have and the reward {self.name!r} reads"
                )
            value = row[column]
            if is_missing(value) and column not in self._nullable:
                remedy = "" if isinstance(self.function, Verifier) else ", or give its parameter a default"
                raise RewardError(
                    f"{where}: no value in column {column!r} ({value}), which the reward {self.name!r} reads: complete "
                    f"the row or leave it out{remedy}"
                )
        if self._check_row is not None:
            try:
                self._check_row({name: value for name, value in row.items() if self.takes(name)})
            except ValueError as error:
                raise RewardError(f"{where}: reward {self.name!r}: {error}") from error

    def columns_read(self, columns: Sequence[str]) -> tuple[str, ...]:
        if isinstance(self.function, Verifier):
            read = {*self.function.columns, *self.function.optional_columns}
            return tuple(column for column in columns if column in read)
        return tuple(column for column in columns if self.takes(column) and column not in self.settings)

    def answer(self, completion: str) -> str | None:
        return self._answer(completion) if self._answer is not None else None

    def reference(self, row: Row) -> str | None:
        return self._reference(row) if self._reference is not None else None

    def doubt(self, prompt: Prompt) -> str | None:
        return self.function.doubt(prompt.row, prompt.text) if isinstance(self.function, Verifier) else None

    @property
    def allowed_cheats(self) -> tuple[str, ...]:
        return self.function.allowed_cheats if isinstance(self.function, Verifier) else ()

    def takes(self, column: str) -> bool:
        """Whether the function is passed the column of this name."""
        return not self._is_own(column) and (self._takes_all or column in self._taken)

    def _is_own(self, name: str) -> bool:
        """Whether the parameter of this name is for what the model wrote."""
        if self._takes_trajectory and name == TRAJECTORY:
            return True
        return self._completion is not None and name == self._completion.name

    @property
    def concurrency_group(self) -> Hashable:
        # A function that takes one call at a time must not get a second one from another entry of a list.
        return self.call.lane or (id(self.function) if self.at_once == 1 else id(self))

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return self.score_where(groups, [(True,) * len(group.trajectories) for group in groups])

    def score_where(self, groups: Sequence[Group], wanted: Wanted) -> list[tuple[Score, ...]]:
        samples = [(group, index) for group in groups for index in range(len(group.trajectories))]
        asked = [i for i, want in enumerate(want for of_group in wanted for want in of_group) if want]
        calls = Calls(
            self.name,
            lambda i: self._call(samples[i][0].trajectories[samples[i][1]], samples[i][0].prompt.row),
            self.call,
            at_once=self.at_once,
            limit_s=math.inf if self.call.process or self._is_async else self.call.timeout_s,
            sample=lambda i: sample_name(*samples[i]),
        )
        results = calls.run(asked)
        scores = iter(
            self._score_one(results[i], group, index) if i in results else NOT_COMPUTED
            for i, (group, index) in enumerate(samples)
        )
        return [tuple(next(scores) for _ in group.trajectories) for group in groups]

    def _score_one(self, result: CallResult, group: Group, index: int) -> Score:
        if result.error is not None:
            parts = {self.name: None}
            return Score(None, parts, error=result.error, timed_out=result.timed_out, retries=result.retries)
        score = self._judge(result.value, group, index)
        return replace(score, retries=result.retries) if result.retries else score

    def _judge(self, value: object, group: Group, index: int) -> Score:
        """The score that a returned value is."""
        otherwise = ", or None where it does not apply"
        if isinstance(value, Refused):
            refused = f"{self.name}: {value.reason}"
            return Score(0.0, {self.name: 0.0}, timed_out=value.timed_out, refused=refused)
        total = None if value is None else self._number(value, partial(sample_name, group, index), otherwise)
        return Score(total, {self.name: total})

    def _call(self, trajectory: Trajectory, row: Row) -> object:
        keywords = {name: value for name, value in row.items() if self.takes(name)} | self.settings
        if self._takes_trajectory:
            keywords[TRAJECTORY] = trajectory
        if self._completion is None:
            value = self.function(**keywords)
        # By name, the parameter may stand anywhere: (prompt, completion) is a common order.
        elif self._completion.kind in _NAMED and self._completion.name == "completion":
            value = self.function(**keywords, completion=trajectory.text)
        else:
            value = self.function(trajectory.text, **keywords)
        return run_coroutine(value, self.call.timeout_s) if inspect.iscoroutine(value) and self._is_async else value

    def _number(self, value: object, sample: Callable[[], str], otherwise: str = "") -> float:
        """A returned value as a finite number; messages call it that of ``sample`` and end with ``otherwise``."""
        if type(value) is float and math.isfinite(value):
            return value
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, Real):
            raise RewardError(
                f"reward {self.name!r} returned a {type(value).__name__} for {sample()}; "
                f"it must return a number{otherwise}"
            )
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        # A number of a user's own class.
        except Exception as error:
            raise RewardError(
                f"reward {self.name!r} returned a {type(value).__name__} for {sample()}, which is no number: its float "
                f"raised {describe(error)}"
            ) from error
        if not math.isfinite(number):
            raise RewardError(
                f"reward {self.name!r} returned {number} for {sample()}; it must return a finite number{otherwise}"
            )
        return number


def _name_of(function: RewardFunction) -> str:
    name = getattr(function, "name", None) or getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _parameters(function: RewardFunction, name: str) -> list[Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    # An object of a user's class may compute its signature.
    except Exception as error:
        raise RewardError(
            f"reward {name!r} cannot be called with a completion: its signature gives {describe(error)}"
        ) from error


def _takes_none(parameter: Parameter) -> bool:
    """Whether the annotation of a parameter says that it takes None."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        return any(name in annotation for name in ("None", "Optional", "Any", "object"))
    return annotation is not Parameter.empty and (
        annotation in (None, Any, object) or type(None) in get_args(annotation)
    )


def _takes_trajectory(parameters: Sequence[Parameter], name: str) -> bool:
    parameter = next((p for p in parameters if p.name == TRAJECTORY), None)
    if parameter is None or parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
        return False
    if parameter.kind is Parameter.POSITIONAL_ONLY:
        raise RewardError(f"reward {name!r}: its parameter {TRAJECTORY!r} is positional-only, but is passed by name")
    return True


def _completion_parameter(parameters: Sequence[Parameter], name: str, takes_trajectory: bool) -> Parameter | None:
    """The parameter for the text; None if there is only one for the trajectory."""
    if parameters and parameters[0].name in ("completions", "prompts"):
        raise RewardError(
            f"reward {name!r} takes {parameters[0].name!r}; sharpen calls a reward once for each completion, "
            "as (completion, **row) -> float"
        )
    for parameter in parameters:
        if parameter.name == "completion" and parameter.kind in (*_NAMED, Parameter.POSITIONAL_ONLY):
            return parameter
    if takes_trajectory:
        nameless = next((p for p in parameters if p.kind is Parameter.POSITIONAL_ONLY), None)
        if nameless is not None and nameless.default is Parameter.empty:
            raise RewardError(
                f"reward {name!r}: nothing is passed to its positional-only parameter {nameless.name!r}; the one for "
                "the completion's text is named 'completion' in a function that takes the trajectory"
            )
        return None
    for parameter in parameters:
        if parameter.kind not in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD):
            return parameter
    raise RewardError(
        f"reward {name!r} has no parameter for the completion or the trajectory: (completion, **row) -> float"
    )


def _at_once(function: RewardFunction, name: str, default: int) -> int:
    value = getattr(function, "at_once", default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RewardError(f"reward {name!r}: the attribute at_once must be a whole number of 1 or more, not {value!r}")
    return value
