"""Just enough of Kafka's protocol to ask a broker whether it is ready."""

import socket
import struct

from support import HOST

METADATA, FIND_COORDINATOR = 3, 10
GROUP, TRANSACTION = 0, 1
CLIENT = b"services"


class Answer:
    """One request and the answer to it, read field by field."""

    def __init__(self, port, api, version, body):
        request = struct.pack(">hhih", api, version, 7, len(CLIENT)) + CLIENT + body
        with socket.create_connection((HOST, port), timeout=2) as link:
            link.sendall(struct.pack(">i", len(request)) + request)
            self.stream = link.makefile("rb")
            self.take(">ii")   # length, correlation id

    def take(self, form):
        """The next fields, in the notation of `struct`."""
        return struct.unpack(form, self.stream.read(struct.calcsize(form)))

    def skip_text(self):
        """Pass over a string that may be null."""
        self.stream.read(max(self.take(">h")[0], 0))


def live_brokers(port):
    """The node ids that this broker knows of; empty if it does not answer (Metadata, v1)."""
    try:
        answer, nodes = Answer(port, METADATA, 1, struct.pack(">i", 0)), []
        for _ in range(answer.take(">i")[0]):
            nodes += answer.take(">i")
            answer.skip_text()     # host
            answer.take(">i")      # port
            answer.skip_text()     # rack
    except (OSError, struct.error):
        return []
    return nodes


def has_coordinator(port, kind):
    """Whether groups or transactions have a coordinator (FindCoordinator, v1).

    The first such question makes the broker create the internal topic.
    """
    body = struct.pack(">h", len(CLIENT)) + CLIENT + struct.pack(">b", kind)
    try:
        answer = Answer(port, FIND_COORDINATOR, 1, body)
        error = answer.take(">ih")[1]   # after the throttle time
    except (OSError, struct.error):
        return False
    return error == 0
