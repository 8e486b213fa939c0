"""Functions called with arguments: values and exceptions come back as plain data."""

import math
import time

import pytest

from sharpen.sandbox import Limits, NotPlain, Raised, Returned, Sandbox, Status


def test_each_call_gives_a_value_or_an_exception(sandbox: Sandbox) -> None:
    source = "def divide(a, b=2):\n    return a / b\n"
    calls = sandbox.call(source, "divide", [[1, 4], [1, 0], {"a": 5}, {"b": 1, "a": 3}])
    assert calls.result.status is Status.OK
    assert calls.outcomes == (
        Returned(0.25),
        Raised("ZeroDivisionError", "division by zero"),
        Returned(2.5),
        Returned(3.0),
    )


def test_a_method_is_called_on_a_new_instance(sandbox: Sandbox) -> None:
    source = (
        "class Solution:\n    def __init__(self):\n        self.n = 0\n"
        "    def count(self, k):\n        self.n += k\n        return self.n\n"
    )
    assert sandbox.call(source, "Solution.count", [[1], [2]]).outcomes == (Returned(1), Returned(2))


def test_a_call_does_not_change_the_arguments_of_the_next(sandbox: Sandbox) -> None:
    shared = [3, 1, 2]
    calls = sandbox.call("def f(x):\n    x.sort()\n    return x", "f", [[shared], [shared]])
    assert calls.outcomes == (Returned([1, 2, 3]), Returned([1, 2, 3]))
    assert shared == [3, 1, 2]


def test_what_stands_under_main_does_not_run(sandbox: Sandbox) -> None:
    source = "def f():\n    return __name__\nif __name__ == '__main__':\n    raise ValueError\n"
    assert sandbox.call(source, "f", [[]]).outcomes == (Returned("solution"),)


def test_a_program_that_ends_early_gives_fewer_outcomes(sandbox: Sandbox) -> None:
    source = "import os\ndef f(n):\n    if n == 2:\n        os._exit(0)\n    return n"
    calls = sandbox.call(source, "f", [[0], [1], [2], [3]])
    assert calls.outcomes == (Returned(0), Returned(1))
    assert calls.result.status is Status.OK


def test_a_call_that_hangs_is_ended_by_the_limit_for_one_call(sandbox: Sandbox) -> None:
    source = "import time\ndef f(n):\n    time.sleep(60 if n == 3 else 0.3)\n    return n"
    calls = sandbox.call(source, "f", [[n] for n in range(5)], limits=Limits(wall_s=60, call_s=1.5))
    assert calls.outcomes == (Returned(0), Returned(1), Returned(2))
    assert calls.result.status is Status.TIMEOUT
    assert calls.result.wall_s < 20


def test_a_missing_function_is_an_error_of_the_program(sandbox: Sandbox) -> None:
    calls = sandbox.call("x = 1", "f", [[]])
    assert (calls.result.status, calls.outcomes) == (Status.ERROR, ())
    assert b"name 'f' is not defined" in calls.result.stderr


def test_an_object_comes_back_as_no_plain_data(sandbox: Sandbox) -> None:
    calls = sandbox.call("class Equal:\n    __eq__ = lambda s, o: True\ndef f():\n    return Equal()", "f", [[]])
    (outcome,) = calls.outcomes
    assert isinstance(outcome, Raised)
    assert outcome.type == "NotPlain"


@pytest.mark.parametrize("base", ["int", "float", "str", "list", "tuple", "dict", "set", "bytes"])
def test_an_object_of_a_subclass_comes_back_as_the_builtin(sandbox: Sandbox, base: str) -> None:
    source = f"class Own({base}):\n    __eq__ = lambda s, o: True\n    __hash__ = None\ndef f():\n    return Own()"
    (outcome,) = sandbox.call(source, "f", [[]]).outcomes
    assert isinstance(outcome, Returned)
    assert type(outcome.value).__name__ == base
    assert outcome.value == eval(base)()


def test_the_argument_list_is_plain_data_too(sandbox: Sandbox) -> None:
    with pytest.raises(NotPlain, match="object"):
        sandbox.call("def f(x): return x", "f", [[object()]])


def test_results_that_the_program_writes_itself_are_only_values(sandbox: Sandbox) -> None:
    source = "import os\nos.write(3, b'\\x00\\x00\\x00\\x06[true]')\nos.write(3, b'junk')\ndef f():\n    return 1"
    assert sandbox.call(source, "f", [[]]).outcomes == ()


def test_a_value_of_every_kind_arrives(sandbox: Sandbox) -> None:
    source = "def f(x):\n    return x"
    values = [None, True, 2**70, -(2**300), 1.5, math.inf, "é\ud800", b"\x00\xff", (1, [2, {3: (4,)}]), {1, 2}, 3 + 4j]
    calls = sandbox.call(source, "f", [[value] for value in values])
    assert calls.outcomes == tuple(map(Returned, values))
    assert [type(o.value) for o in calls.outcomes if isinstance(o, Returned)] == [type(value) for value in values]


def test_a_value_that_would_be_slow_to_decode_comes_back_as_no_plain_data(sandbox: Sandbox) -> None:
    source = (
        "from decimal import Decimal\n"
        "def f(count):\n"
        "    number = 2**5_000 - 1\n"
        "    return {number, *(Decimal(hash(number) + n * (2**61 - 1)) for n in range(count))}\n"
    )
    first, second, third = sandbox.call(source, "f", [[0], [2], [0]]).outcomes
    assert first == third == Returned({2**5_000 - 1})
    assert isinstance(second, Raised)
    assert (second.type, "decimal" in second.message) == ("NotPlain", True)


def test_the_costly_value_of_a_hostile_program_holds_nobody_up(sandbox: Sandbox) -> None:
    source = (
        "import os, struct\n"
        "number = 2**800_000 - 1\n"
        "decimals = ','.join('{\"Decimal\":\"%d\"}' % (hash(number) + n * (2**61 - 1)) for n in range(60))\n"
        'data = b\'[true,{"set":[{"int":"%x"},%s]}]\' % (number, decimals.encode())\n'
        "def f():\n"
        "    os.write(3, struct.pack('!I', len(data)))\n"
        "    left = data\n"
        "    while left:\n"
        "        left = left[os.write(3, left):]\n"
    )
    started = time.thread_time()
    (outcome,) = sandbox.call(source, "f", [[]]).outcomes
    assert time.thread_time() - started < 2
    assert isinstance(outcome, Raised)
    assert outcome.type == "NotPlain"


def test_an_exception_that_a_program_writes_itself_has_a_name_and_a_message_of_text(sandbox: Sandbox) -> None:
    source = (
        "import os, struct\n"
        'data = b\'[false,{"dict":[["classes",["E"]],["message",{"int":"%x"}]]}]\' % (2**64,)\n'
        "os.write(3, struct.pack('!I', len(data)) + data)\n"
        "def f():\n    return 1\n"
    )
    assert sandbox.call(source, "f", [[]]).outcomes == ()
