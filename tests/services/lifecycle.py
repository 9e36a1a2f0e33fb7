"""Starting, stopping and killing instances, whichever way they run, and waiting for the effect.

Called by verbs.py with the box locked (all but `kill9`, which has to work at any moment).
Failure: a start that fails kills what it started and shows the end of the log.
"""

import threading
import time

import runners
from support import Failure, is_free, say

STOP_SECONDS_MAX = 20


def start(box, pairs, runner_by_service):
    """Start the pairs that do not run, all at once; return when each is ready."""
    idle = []
    for service, instance in pairs:
        if runners.is_alive(box, instance):
            say(f"{instance} is already up")
        else:
            idle.append((service, instance))
    begun = time.monotonic()
    try:
        check_ports(box, idle)
        in_parallel(lambda pair: runner_by_service[pair[0].name].launch(box, *pair), idle)
        for service, instance in pairs:
            wait_ready(box, service, instance, begun)
            if (service, instance) in idle:
                report_ready(box, service, instance, begun)
    except BaseException:
        # A half-started set is worse than none.
        for _, instance in idle:
            if runners.is_alive(box, instance):
                runners.runner_of(box, instance).kill(box, instance)
        raise
    for service in dict.fromkeys(service for service, _ in pairs):
        service.settle(box)


def check_ports(box, pairs):
    """Fail early and clearly if somebody else listens where an instance is to listen."""
    for service, instance in pairs:
        taken = [port for port in service.ports(box, instance) if not is_free(port)]
        if taken:
            raise Failure(f"{instance}: port {taken[0]} is in use; choose another --offset in a "
                          "new --dir, or `--offset auto`")


def wait_ready(box, service, instance, begun):
    """Wait until the instance answers, and notice if it ends instead."""
    runner = runners.runner_of(box, instance)
    while not service.is_ready(box, instance):
        waited = time.monotonic() - begun
        if not runner.is_alive(box, instance):
            problem = "ended"
        elif waited > service.ready_seconds_max:
            problem = f"is not ready after {service.ready_seconds_max} s"
        else:
            time.sleep(0.1)
            continue
        raise Failure(f"{instance} {problem}:\n{runner.log_tail(box, instance, 15)}")


def report_ready(box, service, instance, begun):
    """Tell where the instance is and how long it took."""
    ports = " ".join(map(str, service.ports(box, instance)))
    description = runners.runner_of(box, instance).describe(box, instance)
    say(f"{instance} ready after {time.monotonic() - begun:.1f} s: {description}, ports {ports}")


def in_parallel(work, items):
    """Run work(item) in a thread each and pass on the first failure."""
    failures = []

    def guarded(item):
        try:
            work(item)
        except Exception as failure:
            failures.append(failure)
    threads = [threading.Thread(target=guarded, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def stop(box, pairs):
    """Ask every instance to end, wait, and kill what is left.

    All are asked before any is waited for: brokers of one cluster can wait for each other.
    """
    running = [(service, instance) for service, instance in pairs
               if runners.is_alive(box, instance)]
    in_parallel(lambda pair: runners.runner_of(box, pair[1]).ask_to_stop(box, *pair), running)
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for service, instance in running:
        if not wait_gone(box, service, instance, deadline):
            say(f"{instance} did not end in {STOP_SECONDS_MAX} s: SIGKILL")
            crash(box, service, instance)
        say(f"{instance} is down")


def wait_gone(box, service, instance, deadline):
    """Whether the instance ends, and its ports are free again, before the deadline.

    A process can be dead for an instant in which its port still accepts connections.
    """
    while runners.is_alive(box, instance) or not are_free(service.ports(box, instance)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def are_free(ports):
    """Whether a server could listen on all of the ports now."""
    return all(is_free(port) for port in ports)


def crash(box, service, instance):
    """SIGKILL, and wait until the instance is gone."""
    runners.runner_of(box, instance).kill(box, instance)
    if not wait_gone(box, service, instance, time.monotonic() + STOP_SECONDS_MAX):
        raise Failure(f"{instance} is still there {STOP_SECONDS_MAX} s after SIGKILL")


def kill9(box, pairs):
    """Crash instances that run."""
    for service, instance in pairs:
        if not runners.is_alive(box, instance):
            raise Failure(f"{instance} is not running")
        what = runners.runner_of(box, instance).describe(box, instance)
        crash(box, service, instance)
        say(f"{instance} killed ({what})")


def wipe(box, pairs):
    """Delete what stopped instances have kept; an empty box gives its port offset back."""
    for service, instance in pairs:
        runners.runner_of(box, instance).wipe(box, service, instance)
        box.forget(instance)
    if not box.is_used():
        box.close()
