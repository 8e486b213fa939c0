"""Programs that want to stop, change or watch other processes."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "signals",
        r"""
#: asking whether the trainer is there (harmless)
os.kill(TRAINER, 0)
through("it is")

#: the end of its parent
import signal
for pid in {os.getppid(), 1, 2} - {os.getpid(), 0}:
    os.kill(pid, signal.SIGKILL)
    through("sent")

#: the end of its group
os.kill(0, 9)
through("sent")

#: the end of every process by its number
import signal
for pid in range(2, 5000):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
            through(pid)
        except OSError:
            pass

#: signals by other calls
refused("tkill", VICTIM, 9)
refused("tgkill", VICTIM, VICTIM, 9)
refused("rt_sigqueueinfo", VICTIM, 9, 0)
refused("rt_tgsigqueueinfo", VICTIM, VICTIM, 9, 0)
refused("pidfd_send_signal", 0, 9, 0, 0)

#: writing into another process
refused("process_vm_writev", VICTIM, 0, 0, 0, 0, 0)

#: limits of another process
result, error = raw("prlimit64", VICTIM, 7, 0, (ctypes.c_uint64 * 2)())
if result >= 0 or error not in (1, 38):
    through(f"{result}, errno {error}")

#: priorities of other processes
refused("setpriority", 0, VICTIM, 19)
refused("sched_setaffinity", VICTIM, 8, 0)
refused("sched_setscheduler", VICTIM, 0, 0)
refused("ioprio_set", 1, VICTIM, 0)

#: memory of others moved
refused("move_pages", VICTIM, 0, 0, 0, 0, 0)
refused("migrate_pages", VICTIM, 0, 0, 0)
refused("process_madvise", 0, 0, 0, 0, 0)
""",
    )
)
