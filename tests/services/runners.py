"""Which of the two ways runs a service: as processes (native.py) or in Docker (containers.py).

Native is tried first; Docker is taken where that fails and an engine answers. The choice is
recorded with each instance, and holds until the service is wiped.
`$MILLSTREAM_SERVICES_RUNNER` (native or docker) decides for services that were never started.
"""

import os

import containers
import native
from support import Failure, say

RUNNERS = {runner.NAME: runner for runner in (native, containers)}


def runner_of(box, instance):
    """The way in which an instance was started; None if it never was."""
    return RUNNERS.get(box.facts(instance).get("runner"))


def is_alive(box, instance):
    """Whether the instance runs now."""
    runner = runner_of(box, instance)
    return runner is not None and runner.is_alive(box, instance)


def install(box, service):
    """Install what the service needs and return the way to run it."""
    recorded = box.recorded(service.name)
    if recorded:
        runner = runner_of(box, recorded[0])
        runner.install(box, service)
        return runner
    wanted = os.environ.get("MILLSTREAM_SERVICES_RUNNER")
    if wanted:
        if wanted not in RUNNERS:
            raise Failure(f"MILLSTREAM_SERVICES_RUNNER is `{wanted}`, not {' or '.join(RUNNERS)}")
        RUNNERS[wanted].install(box, service)
        return RUNNERS[wanted]
    return install_somehow(box, service)


def install_somehow(box, service):
    """Natively if that works, else in Docker, else say what would help."""
    try:
        native.install(box, service)
        return native
    except Failure as problem:
        if not containers.engine_answers():
            raise Failure(f"{service.name} cannot run here: {problem}\n"
                          "Or start a Docker engine, or give the address of a running "
                          f"{service.name} in {service.variable}.") from None
        say(f"{service.name} runs in Docker: {problem}")
    containers.install(box, service)
    return containers
