"""Small helpers that every module here uses: messages, file locks, ports, ends of logs."""

import contextlib
import fcntl
import pathlib
import socket
import sys

HOST = "127.0.0.1"


class Failure(Exception):
    """Something the user has to see, in one message, without a stack trace."""


class NotOurs(Failure):
    """A service whose address came from the environment was to be killed or restarted."""


def say(text):
    """Tell the user what happens; standard output is kept for what other programs read."""
    print(f"services: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path):
    """Hold a file lock: two `services` at once wait for each other here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tail(path, lines=15):
    """The last lines of a text file."""
    try:
        return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def is_free(port):
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listens(host, port):
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
