"""What every peer's `run` shares: the arguments that the bench gives, and the lines that it reads.

A run makes two passes over the topic. The first leaves its answer in the topic of answers: JSON with `window_start`, `url` and `views`, the last
record of a group being the one that counts. The second throws its answer away, and is the one that is measured. `began` and `ended` say where it
lies, so that the bench knows which CPU time belongs to it. Everything else goes to standard error.
"""

import argparse
import pathlib
import socket


def arguments():
    """What the bench asks for."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--home", type=pathlib.Path, required=True, help="where it is installed")
    parser.add_argument("--query", choices=["windows", "dedup"], required=True)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True, help="of clicks")
    parser.add_argument("--clicks", type=int, required=True, help="how many there are")
    parser.add_argument("--answers", required=True, help="an empty topic")
    parser.add_argument("--scratch", type=pathlib.Path, required=True, help="an empty folder")
    return parser.parse_args()


def began():
    """The pass that counts is about to begin."""
    print("began", flush=True)


def ended(seconds):
    """It is over, and took so long from its first record to its last."""
    print(f"ended {seconds:.3f}", flush=True)


def free_ports(count):
    """Ports of loopback that nobody listens at."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
