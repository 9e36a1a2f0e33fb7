"""What the Python tests of the stack and of the dashboard wait with, and where they listen.

Nothing waits without an end: what does not come is a `Late` error that says what was waited for.
"""

import socket
import time

PATIENCE_SECONDS = 60


class Late(AssertionError):
    """Something did not come in time."""


def wait(what, condition, seconds=PATIENCE_SECONDS):
    """What `condition` returns as soon as it is true; asked again and again."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Late(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def free_ports(count):
    """Ports that nobody listens at."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
