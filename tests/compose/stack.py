"""The stack of docker-compose.yml as the tests start it, break it and look into it.

A stack is a project of its own on free ports, with an image that holds a ready binary.
"""

import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from traces import Span
from waiting import free_ports

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS = ("MASTER_PORT", "MASTER_HTTP_PORT", "STANDBY_PORT", "STANDBY_HTTP_PORT", "KAFKA_PORT", "POSTGRES_PORT",
         "OBJECT_STORE_PORT", "JAEGER_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
# Names of the project that are in the way of nobody.
PROJECT = "millstream-test"
# More than a run of the tests leaves.
TRACES_MAX = 20_000


def run(*command, env=None, text=None, check=True):
    """What a command printed; an error holds what it complained about."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=env, input=text, text=True,
                          capture_output=True)
    if check and done.returncode:
        raise AssertionError(f"`{' '.join(map(str, command))}`: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Stack:
    """One project of the compose file."""

    def __init__(self, artifacts):
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.env = dict(os.environ, COMPOSE_PROJECT_NAME=PROJECT,
                        COMPOSE_FILE="docker-compose.yml:tests/compose/override.yml",
                        MILLSTREAM_IMAGE="millstream:test", MILLSTREAM_ARTIFACTS=str(artifacts),
                        **{name: str(port) for name, port in self.ports.items()})
        self.volumes_before = self.volumes()

    def compose(self, *arguments, text=None, check=True):
        """`docker compose ARGUMENTS`."""
        return run("docker", "compose", *arguments, env=self.env, text=text, check=check)

    @staticmethod
    def volumes():
        """All volumes of the engine: those without a name belong to no project."""
        return set(run("docker", "volume", "ls", "--quiet").split())

    def build(self):
        """Makes the image; its size in bytes."""
        self.compose("build", "--quiet")
        return int(run("docker", "image", "inspect", "--format", "{{.Size}}", "millstream:test"))

    def up(self, workers, *options):
        """Starts what does not run, waits until all of it is healthy; the seconds it took."""
        began = time.monotonic()
        self.compose("up", "--detach", "--wait", "--scale", f"worker={workers}", *options)
        return time.monotonic() - began

    def scale(self, workers):
        """As `up`, and leaves alone what runs."""
        return self.up(workers, "--no-recreate")

    def down(self, *options):
        """Ends it."""
        self.compose("--profile", "*", "down", "--timeout", "30", *options)

    def containers(self, service):
        """The names of a service's running containers."""
        lines = self.compose("ps", "--format", "json", service, check=False).splitlines()
        return sorted(json.loads(line)["Name"] for line in lines)

    def kill(self, container):
        """SIGKILL; the moment it was sent."""
        moment = time.monotonic()
        run("docker", "kill", container)
        return moment

    def millstream(self, *arguments):
        """What a verb prints, called inside whichever master runs."""
        for service in ("master", "master-standby"):
            if self.containers(service):
                return self.compose("exec", "-T", service, "millstream", *arguments)
        raise AssertionError("no master runs")

    def sql(self, query):
        """The rows that a query returns, as lists of texts."""
        printed = self.compose("exec", "-T", "postgres", "psql", "--username=millstream", "--no-align", "--tuples-only",
                               "--quiet", "--set=ON_ERROR_STOP=1", f"--command={query}")
        return [line.split("|") for line in printed.splitlines()]

    def has_table(self, name):
        """Whether the sink has made its table yet."""
        return self.sql(f"SELECT to_regclass('{name}') IS NOT NULL") == [["t"]]

    def produce(self, records, topic="clicks_topic"):
        """Sends texts to a topic, one record each."""
        self.compose("exec", "-T", "kafka", "/opt/kafka/bin/kafka-console-producer.sh", "--bootstrap-server=kafka:29092",
                     f"--topic={topic}", text="".join(f"{record}\n" for record in records))

    def page(self, port, path, **query):
        """What is served at one of the published ports; nothing where nobody serves it yet."""
        url = f"http://127.0.0.1:{self.ports[port]}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return ""

    def standing_by(self, port):
        """What the dashboard of a master says instead of its pages; nothing where that master reigns."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}/", timeout=10).close()
        except urllib.error.HTTPError as refused:
            return refused.read().decode()
        return ""

    def traces(self):
        """Everything that the collector holds: of each trace its spans, by the trace's id."""
        found = {}
        for service in json.loads(self.page("JAEGER_PORT", "/api/services") or "{}").get("data") or []:
            page = self.page("JAEGER_PORT", "/api/traces", service=service, limit=TRACES_MAX, lookback="1h")
            for trace in json.loads(page or "{}").get("data") or []:
                found[trace["traceID"]] = [Span(span, trace["processes"][span["processID"]]) for span in trace["spans"]]
        return found

    def memory(self):
        """Memory of our processes by container, as the kernel tells it: what is resident now, and the most that ever was."""
        found = {}
        for name in sum((self.containers(service) for service in ("master", "master-standby", "worker")), []):
            lines = run("docker", "exec", name, "cat", "/proc/1/status").splitlines()
            kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
            found[name.removeprefix(f"{PROJECT}-")] = f"{kib['VmRSS'] >> 10} MiB (peak {kib['VmHWM'] >> 10})"
        return found

    def left(self):
        """Containers and networks of the project, and volumes that were not there before it."""
        label = f"label=com.docker.compose.project={PROJECT}"
        found = [run("docker", *kind, "--quiet", "--filter", label).split() for kind in (("ps", "--all"), ("network", "ls"))]
        return [*sum(found, []), *(self.volumes() - self.volumes_before)]
