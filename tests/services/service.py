"""What the services have in common: what each kind says about itself.

`install`, `prepare` and `command` are for running as a process (native.py), `container` is for
running in Docker (containers.py); the rest holds for both.
"""

import os
import signal


class Service:
    """One kind of service. A kind may have several instances, named `kafka.1`, `kafka.2`, ..."""

    name = ""
    # The variable that holds the service's address, for what uses it and for a given one.
    variable = ""
    # Default ports, distinct modulo 1000 over all services.
    default_ports = ()
    stop_signal = signal.SIGTERM
    ready_seconds_max = 60
    # The account that runs the process where this command runs as root.
    account = None
    process_env = {}
    # The public image for Docker.
    IMAGE = ""

    def install(self, cache):
        """Bring the programs onto this machine; fails with what to install."""
        raise NotImplementedError

    def instances(self, _box):
        """The instances that `up` starts."""
        return [self.name]

    def ports(self, box, _instance):
        """The ports that an instance listens on."""
        return [box.port(default) for default in self.default_ports]

    def prepare(self, box, instance):
        """Write the configuration and make the data folder of a process."""

    def command(self, box, instance):
        """The command line of a process."""
        raise NotImplementedError

    def wipe(self, box, instance):
        """Delete what the process keeps outside the box."""

    def container(self, box, instance):
        """What to run in Docker."""
        raise NotImplementedError

    def is_ready(self, box, instance):
        """Whether the instance really answers."""
        raise NotImplementedError

    def settle(self, box):
        """Setup at first use, once every instance is ready."""

    def exports(self, box):
        """The environment of a program that uses the service."""
        raise NotImplementedError

    def endpoints(self, address):
        """The (host, port) pairs in an address of `variable`; one that answers is enough."""
        raise NotImplementedError

    def given_address(self, box):
        """The address in the environment, unless it is the one that this very box gives out."""
        given = os.environ.get(self.variable)
        if not given:
            return None
        is_own = box.recorded(self.name) and str(self.exports(box)[self.variable]) == given
        return None if is_own else given
