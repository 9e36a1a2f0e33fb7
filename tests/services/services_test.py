"""What `services` promises, shown with a small server instead of Kafka: fast, nothing installed.

Method: every test has its own folder, cache and ports, and starts real processes in them.
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock

import catalog
import native
import runners
import verbs
from box import Box
from install import Cache
from kafka import Kafka, cluster_properties
from postgres import Postgres
from s3 import S3
from service import Service
from support import HOST, Failure, NotOurs, is_free, listens


def some_free_port():
    """Below the ports of outgoing connections, and hardly that of a test run beside this one."""
    while True:
        port = random.randrange(20000, 30000)
        if is_free(port):
            return port


class Echo(Service):
    """A web server from Python's library, in the place of a real service."""

    name, variable = "echo", "ECHO_ADDRESS"
    program = [sys.executable, "-m", "http.server", "--bind", HOST]

    def __init__(self):
        self.default_ports = (some_free_port(),)

    def install(self, cache):
        """Nothing is needed."""

    def prepare(self, box, instance):
        box.folder(instance)

    def command(self, box, instance):
        return [*self.program, str(self.ports(box, self.name)[0])]

    def is_ready(self, box, instance):
        return listens(HOST, self.ports(box, self.name)[0])

    def exports(self, box):
        return {self.variable: f"{HOST}:{self.ports(box, self.name)[0]}"}

    def endpoints(self, address):
        host, _, port = address.rpartition(":")
        return [(host, int(port))]


def words(*names, **more):
    """The parsed arguments of a verb."""
    defaults = {"names": list(names), "brokers": None, "fresh": False, "wipe": False}
    return types.SimpleNamespace(**(defaults | more))


class Sandbox(unittest.TestCase):
    """A folder and a catalog that holds only `Echo`; what a test left running is stopped."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.echo = Echo()
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith(("MILLSTREAM_", "ECHO_"))}
        for patch in (mock.patch.dict(catalog.SERVICES, {"echo": self.echo}, clear=True),
                      mock.patch.dict(os.environ, environment, clear=True),
                      contextlib.redirect_stderr(io.StringIO())):
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)
        self.box = self.make_box("first")

    def make_box(self, name):
        """A box on free ports."""
        box = Box(self.folder / name, Cache(self.folder / "cache"), "auto")
        self.addCleanup(lambda: verbs.down(box, words("all")))
        return box

    def run_verb(self, *command, box=None, **more):
        """`services run echo -- COMMAND`; returns the exit status."""
        with self.assertRaises(SystemExit) as ended:
            verbs.run(box or self.box, words("echo", command=list(command), **more))
        return ended.exception.code

    def is_up(self):
        """Whether the service of the first box answers."""
        return self.echo.is_ready(self.box, "echo")


class Lifecycle(Sandbox):
    """Starting, stopping, crashing."""

    def test_a_killed_service_is_down_until_it_is_restarted(self):
        verbs.up(self.box, words("echo"))
        verbs.kill9(self.box, words("echo"))
        self.assertFalse(self.is_up())
        verbs.restart(self.box, words("echo"))
        self.assertTrue(self.is_up())

    def test_data_outlive_down_and_go_with_wipe(self):
        verbs.up(self.box, words("echo"))
        kept = self.box.folder("echo") / "kept"
        kept.touch()
        verbs.down(self.box, words("echo"))
        self.assertTrue(kept.exists())
        verbs.down(self.box, words("echo", wipe=True))
        self.assertFalse(kept.exists())

    def test_a_process_that_has_the_pid_of_a_dead_service_is_not_taken_for_it(self):
        self.box.open([])
        self.box.record("echo", runner="native", pid=os.getpid(), started="1")
        self.assertFalse(runners.is_alive(self.box, "echo"))

    def test_a_service_that_ends_at_once_is_reported_with_its_log(self):
        self.echo.program = ["sh", "-c", "echo it is broken; exit 1"]
        with self.assertRaisesRegex(Failure, "echo ended:\nit is broken"):
            verbs.up(self.box, words("echo"))

    def test_boxes_side_by_side_take_different_ports_and_give_them_back(self):
        second, third = self.make_box("second"), self.make_box("third")
        verbs.up(self.box, words("echo"))
        verbs.up(second, words("echo"))
        self.assertNotEqual(self.box.settings["offset"], second.settings["offset"])
        freed = second.settings["offset"]
        verbs.down(second, words("all", wipe=True))
        verbs.up(third, words("echo"))
        self.assertEqual(third.settings["offset"], freed)

    def test_an_unknown_service_is_refused_with_the_ones_there_are(self):
        with self.assertRaisesRegex(Failure, "no service `kafkaa`; there are: echo"):
            verbs.up(self.box, words("kafkaa"))


class Run(Sandbox):
    """`run`: services around one command."""

    def test_the_command_finds_the_services_and_its_status_is_passed_on(self):
        script = 'test -n "$ECHO_ADDRESS" && test -d "$MILLSTREAM_SERVICES_DIR" && exit 7'
        self.assertEqual(self.run_verb("sh", "-c", script), 7)

    def test_what_it_started_is_stopped_also_when_the_command_fails(self):
        self.assertEqual(self.run_verb("false"), 1)
        self.assertFalse(self.is_up())

    def test_what_was_up_before_stays_up(self):
        verbs.up(self.box, words("echo"))
        self.run_verb("true")
        self.assertTrue(self.is_up())

    def test_what_another_run_uses_stays_up_until_that_ends(self):
        other = subprocess.Popen(["sleep", "60"])
        lease = self.box.root / "runs" / str(other.pid)
        lease.parent.mkdir(parents=True)
        lease.write_text(native.start_time(other.pid))
        self.run_verb("true")
        self.assertTrue(self.is_up())
        other.kill()
        other.wait()
        self.run_verb("true")
        self.assertFalse(self.is_up())

    def test_a_fresh_run_begins_without_the_data_of_earlier_ones(self):
        self.run_verb("touch", str(self.box.root / "echo" / "old"))
        self.assertEqual(self.run_verb("test", "-e", str(self.box.root / "echo" / "old")), 0)
        old = str(self.box.root / "echo" / "old")
        self.assertEqual(self.run_verb("test", "-e", old, fresh=True), 1)


class GivenAddress(Sandbox):
    """An address in the environment is used instead of starting the service."""

    def give(self, address):
        """Set the variable for this test."""
        os.environ["ECHO_ADDRESS"] = address

    def test_it_is_passed_on_and_nothing_is_started(self):
        other = self.make_box("other")
        verbs.up(other, words("echo"))
        address = self.echo.exports(other)["ECHO_ADDRESS"]
        self.give(address)
        self.assertEqual(self.run_verb("sh", "-c", f'test "$ECHO_ADDRESS" = {address}'), 0)
        self.assertEqual(self.box.recorded("echo"), [])

    def test_it_can_neither_be_killed_nor_restarted(self):
        self.give("127.0.0.1:1")
        for verb in (verbs.kill9, verbs.restart):
            with self.assertRaisesRegex(NotOurs, "given in ECHO_ADDRESS"):
                verb(self.box, words("echo"))

    def test_one_where_nothing_answers_is_an_error(self):
        self.give("127.0.0.1:1")
        with self.assertRaisesRegex(Failure, "nothing answers at the address in ECHO_ADDRESS"):
            verbs.up(self.box, words("echo"))

    def test_the_address_that_the_box_gave_out_is_its_own(self):
        verbs.up(self.box, words("echo"))
        self.give(self.echo.exports(self.box)["ECHO_ADDRESS"])
        verbs.kill9(self.box, words("echo"))
        self.assertFalse(self.is_up())


class Installing(Sandbox):
    """The cache, and what is said where nothing can be installed."""

    def test_a_failed_build_leaves_no_folder_and_shows_its_log(self):
        with self.assertRaisesRegex(Failure, "it went wrong"):
            self.box.cache.get("thing-1", lambda folder, run: run(
                "sh", "-c", "echo it went wrong; exit 1"))
        self.assertFalse((self.box.cache.root / "thing-1").exists())

    def test_without_packages_and_docker_the_user_hears_what_to_do(self):
        def refuse(_cache):
            raise Failure("no echo on this machine")
        self.echo.install = refuse
        with mock.patch("containers.engine_answers", return_value=False):
            with self.assertRaisesRegex(Failure, "no echo on this machine\nOr start a Docker "
                                        "engine, or give the address .* in ECHO_ADDRESS"):
                verbs.up(self.box, words("echo"))


class Details(unittest.TestCase):
    """Parsing and configuration."""

    def test_addresses_are_taken_apart(self):
        self.assertEqual(Kafka().endpoints("a:1,b:2"), [("a", 1), ("b", 2)])
        self.assertEqual(Kafka().endpoints("a"), [("a", 9092)])
        self.assertEqual(Postgres().endpoints("postgres://u:p@h:77/d"), [("h", 77)])
        self.assertEqual(Postgres().endpoints("postgres://h/d"), [("h", 5432)])
        self.assertEqual(S3().endpoints("https://h"), [("h", 443)])

    def test_a_cluster_of_three_goes_on_without_one_broker(self):
        properties = cluster_properties(1, ["1@a:1", "2@b:2", "3@c:3"])
        self.assertEqual(properties["default.replication.factor"], 3)
        self.assertEqual(properties["min.insync.replicas"], 2)

    def test_options_stand_on_either_side_of_the_verb(self):
        loader = importlib.machinery.SourceFileLoader(
            "services", str(pathlib.Path(__file__).with_name("services")))
        services = importlib.util.module_from_spec(
            importlib.util.spec_from_loader("services", loader))
        loader.exec_module(services)
        before = services.arguments(["--dir", "d", "run", "kafka", "--", "sh", "--dir", "x"])
        after = services.arguments(["run", "kafka", "--dir", "d", "--", "sh", "--dir", "x"])
        self.assertEqual((before.dir, before.command), ("d", ["sh", "--dir", "x"]))
        self.assertEqual((after.dir, after.command), (before.dir, before.command))


if __name__ == "__main__":
    unittest.main()
