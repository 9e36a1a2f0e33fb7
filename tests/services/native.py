"""Instances as processes of this machine: start, stop, kill, and what is seen of them.

One of the two ways to run a service (the other: containers.py), with the same functions.
A process is known by its pid and its start time, so that a reused pid is never signalled.
Needs Linux: both are read from /proc, where a zombie is also told from a living process.
"""

import os
import pathlib
import pwd
import signal
import subprocess

from support import Failure, tail

NAME = "native"


def start_time(pid):
    """When the process started, in the kernel's own units; None if it does not live."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def pid_of(box, instance):
    """The recorded pid while that very process lives, else None."""
    facts = box.facts(instance)
    started = facts.get("started")   # null for one that ended before it could be recorded
    return facts["pid"] if started and start_time(facts["pid"]) == started else None


def install(box, service):
    """Bring what the service needs onto this machine."""
    if not pathlib.Path("/proc/self/stat").exists():
        raise Failure("running services as processes needs Linux")
    service.install(box.cache)


def is_alive(box, instance):
    """Whether the instance runs."""
    return pid_of(box, instance) is not None


def launch(box, service, instance):
    """Start the instance on the data that it has; it is not ready yet when this returns."""
    service.prepare(box, instance)
    command = list(map(str, service.command(box, instance)))
    with open(box.log(instance), "a") as log:
        child = subprocess.Popen(command, cwd="/", env=os.environ | service.process_env,
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 start_new_session=True, **as_user(service.account))
    box.record(instance, runner=NAME, pid=child.pid, started=start_time(child.pid))


def ask_to_stop(box, service, instance):
    """Ask for a graceful end; does not wait for it."""
    send(pid_of(box, instance), service.stop_signal)


def kill(box, instance):
    """SIGKILL, as a crash."""
    send(pid_of(box, instance), signal.SIGKILL)


def send(pid, number):
    """Signal a process that may have ended a moment ago."""
    if pid is not None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def wipe(box, service, instance):
    """Delete what the service keeps outside the box; the box deletes the rest."""
    service.wipe(box, instance)


def log_tail(box, instance, lines):
    """The end of the log."""
    return tail(box.log(instance), lines)


def describe(box, instance):
    """The instance for `status`: pid and resident memory."""
    pid = pid_of(box, instance)
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "pid -"
    resident = [int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS")]
    return f"pid {pid}  {resident[0] if resident else '-'} MiB"


def as_user(account):
    """Popen arguments that give up root for an account; nothing to do for anyone else."""
    if account is None or os.getuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise Failure(f"there is no account `{account}` to run as") from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
