"""Instances as containers of public images, where a service cannot be installed natively.

One of the two ways to run a service (the other: native.py), with the same functions. Every port
is published on 127.0.0.1 only. The data stay in the container, which outlives a stop or a crash
and goes with `down --wipe`. The containers of a box share a network, so that brokers meet.
"""

import dataclasses
import shutil
import subprocess
import threading

from support import HOST, Failure, say

NAME = "docker"
STOP_SECONDS_MAX = 20
NETWORK_LOCK = threading.Lock()


@dataclasses.dataclass
class Container:
    """What a service wants to run: an image, ports (here -> inside), environment, arguments."""
    image: str
    ports: dict
    env: dict = dataclasses.field(default_factory=dict)
    arguments: list = dataclasses.field(default_factory=list)


def docker(*arguments, check=True):
    """Run one Docker command and return what it printed."""
    command = ["docker", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    if check and done.returncode:
        raise Failure(f"`{' '.join(command[:3])}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


def engine_answers():
    """Whether there is a Docker engine to talk to."""
    if not shutil.which("docker"):
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def container_name(box, instance):
    """The name on the engine, which is also the host name on the box's network."""
    return f"{network(box)}-{instance.replace('.', '-')}"


def network(box):
    """The network that the containers of a box share."""
    return f"millstream-{box.label}"


def install(_box, service):
    """Fetch the image, once."""
    image = service.IMAGE
    if not docker("image", "ls", "-q", image):
        say(f"pulling {image}")
        docker("pull", "-q", image)


def exists(box, instance):
    """Whether the container is there, running or not."""
    return bool(docker("ps", "-aq", "--filter", f"name=^{container_name(box, instance)}$"))


def is_alive(box, instance):
    """Whether the instance runs."""
    return bool(docker("ps", "-q", "--filter", f"name=^{container_name(box, instance)}$"))


def launch(box, service, instance):
    """Start the instance on the data that it has; it is not ready yet when this returns."""
    box.record(instance, runner=NAME)
    if exists(box, instance):
        docker("start", container_name(box, instance))
        return
    make_network(box)
    wanted = service.container(box, instance)
    options = ["--detach", "--name", container_name(box, instance), "--network", network(box),
               "--label", f"millstream-services={box.root}"]
    for here, inside in wanted.ports.items():
        options += ["--publish", f"{HOST}:{here}:{inside}"]
    for key, value in wanted.env.items():
        options += ["--env", f"{key}={value}"]
    docker("run", *options, wanted.image, *wanted.arguments)


def make_network(box):
    """Make the box's network, once: instances are launched in parallel."""
    with NETWORK_LOCK:
        if not docker("network", "ls", "-q", "--filter", f"name=^{network(box)}$"):
            docker("network", "create", network(box))


def ask_to_stop(box, _service, instance):
    """Stop gracefully."""
    docker("stop", "--time", STOP_SECONDS_MAX, container_name(box, instance), check=False)


def kill(box, instance):
    """SIGKILL, as a crash."""
    docker("kill", "--signal", "KILL", container_name(box, instance), check=False)


def wipe(box, _service, instance):
    """Delete the container with its data, and the network with the last container."""
    docker("rm", "--force", "--volumes", container_name(box, instance), check=False)
    docker("network", "rm", network(box), check=False)


def log_tail(box, instance, lines):
    """The end of the log."""
    done = subprocess.run(["docker", "logs", "--tail", str(lines), container_name(box, instance)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.stdout.rstrip()


def describe(box, instance):
    """The instance for `status`."""
    return f"container {container_name(box, instance)}"
