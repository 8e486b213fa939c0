"""Two programs that run at the same time cannot signal each other by the ways that are closed."""

import threading

import pytest

from sharpen.sandbox import Limits, Result, Sandbox, Status

MAPPED = """
import ctypes, json, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
FUTEX, SET_TID_ADDRESS = (202, 218) if os.uname().machine == "x86_64" else (98, 96)
# The same word of the same file in both programs, mapped to be shared and read.
word = libc.mmap(None, 4096, 1, 1, os.open(json.__file__, os.O_RDONLY), 0)
"""
WAITS = (
    MAPPED
    + """
value, limit = ctypes.c_uint32.from_address(word).value, (ctypes.c_long * 2)(2, 0)
was_woken = libc.syscall(FUTEX, ctypes.c_void_p(word), 0, value, limit, 0, 0) == 0
print("woken" if was_woken else "not woken")
"""
)
WAKES = (
    MAPPED
    + """
for _ in range(30):
    time.sleep(0.05)
    libc.syscall(FUTEX, ctypes.c_void_p(word), 1, 100, 0, 0, 0)
"""
)
ENDS_THREADS = (
    MAPPED
    + """
# At the end of a thread the kernel itself wakes whoever waits at this address.
for _ in range(30):
    time.sleep(0.05)
    thread = threading.Thread(target=lambda: libc.syscall(SET_TID_ADDRESS, ctypes.c_void_p(word)))
    thread.start()
"""
)


def at_the_same_time(sandbox: Sandbox, *programs: str) -> list[Result]:
    sandbox.run("")
    done: dict[str, Result] = {}

    def run(program: str) -> None:
        done[program] = sandbox.run(program, limits=Limits(wall_s=20))

    threads = [threading.Thread(target=run, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done[program] for program in programs]


@pytest.mark.parametrize("bell", [WAKES, ENDS_THREADS], ids=["wake", "end of a thread"])
def test_a_word_of_a_file_that_both_map_is_no_bell(sandbox: Sandbox, bell: str) -> None:
    waits, rings = at_the_same_time(sandbox, WAITS, bell)
    assert (waits.status, waits.stdout, rings.status) == (Status.OK, b"not woken\n", Status.OK), (waits, rings)


def test_threads_locks_and_waits_of_a_program_work_as_ever(sandbox: Sandbox) -> None:
    source = """
import ctypes, queue, threading, time
libc = ctypes.CDLL(None)
# The C library waits for the end of a thread by a futex that is not private.
kind = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def body(_):
    time.sleep(0.2)
    return 7
callback = kind(body)
thread, value = ctypes.c_void_p(), ctypes.c_void_p()
assert libc.pthread_create(ctypes.byref(thread), None, callback, None) == 0
assert libc.pthread_join(thread, ctypes.byref(value)) == 0
asked, answered = queue.Queue(), queue.Queue()
workers = [threading.Thread(target=lambda: answered.put(asked.get(timeout=10) ** 2)) for _ in range(4)]
for worker in workers:
    worker.start()
for n in range(4):
    asked.put(n)
print(value.value, sorted(answered.get(timeout=10) for _ in workers), threading.Event().wait(0.01))
print(time.process_time() > 0, time.thread_time() > 0, time.clock_gettime(time.pthread_getcpuclockid(
    threading.get_ident())) > 0)
"""
    result = sandbox.run(source)
    assert result.stdout == b"7 [0, 1, 4, 9] False\nTrue True True\n", result.stderr
