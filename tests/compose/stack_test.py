"""`docker compose up --scale worker=3`, as users meet it: what they may count on, and what happens when containers die.

Method: one stack, in the order of the suites at the end; the oracle counts what was sent. Prints figures, asserts none of them.
MILLSTREAM_ARTIFACTS names the folder with the binary to pack (see deploy/Dockerfile).
"""

import json
import os
import pathlib
import tempfile
import time
import unittest

import grpc

from client import Control, Reflected, details
from clicks import Clicks
from stack import PROJECT, ROOT, Stack
from stack_case import Shared, StackTest, tell
from traces import epoch_lacks, gaps, root, untold
from waiting import wait

PAGE_VIEWS = ROOT / "jobs" / "page_views.sql"
ACTION_COUNTS = ROOT / "jobs" / "action_counts.sql"
CONTROL = "millstream.v1.Control"
CHUNK = 25_000
# The jobs of these tests have no quota; that Prometheus takes the expressions is looked at all the same.
WITHOUT_A_SAMPLE = {"job: Quota used"}


def expressions():
    """What the dashboards ask: (dashboard, panel, PromQL)."""
    boards = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    return [
        (board.stem, panel["title"], target["expr"])
        for board in boards for panel in json.loads(board.read_text())["panels"] for target in panel.get("targets", [])
    ]


def setUpModule():
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    stack = Shared.stack = Stack(pathlib.Path(os.environ["MILLSTREAM_ARTIFACTS"]).resolve())
    stack.down("--volumes")
    unittest.addModuleCleanup(stack.down, "--volumes")
    stack.volumes_before = stack.volumes()
    tell("image", f"{stack.build() / 1e6:.0f} MB")
    tell("cold up with 3 workers until all is healthy", f"{stack.up(3):.1f} s")
    tell("memory of each process while it is idle", stack.memory())
    addresses = [f"localhost:{stack.ports[name]}" for name in ("MASTER_PORT", "STANDBY_PORT")]
    Shared.control = Control(folder.name, addresses)
    Shared.clicks = Clicks(seed=1)


class AClient(StackTest):
    """Submitting from anything."""

    def reflected(self):
        """A client of the master that reigns, which knows what that says about itself."""
        port = "MASTER_PORT" if self.reigns("master") else "STANDBY_PORT"
        return Reflected(f"localhost:{self.stack.ports[port]}")

    def test_1_a_master_tells_a_client_without_any_file_what_it_serves(self):
        reflected = self.reflected()
        self.assertLessEqual({CONTROL, "grpc.health.v1.Health"}, reflected.services())
        workers = reflected.call(CONTROL, "ListWorkers", {})["workers"]
        self.assertEqual(len(workers), 3)
        addresses = {worker["flightAddress"] for worker in workers}
        self.assertEqual(len(addresses), 3)
        self.assertTrue(all(address.endswith(":7080") for address in addresses), addresses)

    def test_2_a_refusal_names_file_line_and_column(self):
        sql = PAGE_VIEWS.read_text().replace("topic =", "topik =")
        line = next(number for number, text in enumerate(sql.splitlines(), 1) if "topik" in text)
        with self.assertRaises(grpc.RpcError) as refused:
            self.control.submit("refused", sql, "jobs/typo.sql")
        status, found = details(refused.exception)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        told = [violation.description for violation in found["BadRequest"].field_violations]
        self.assertTrue(any(text.startswith(f"jobs/typo.sql:{line}:3: ") and "did you mean topic?" in text for text in told), told)
        ours = self.control.messages.SubmitProblems.FromString(found["millstream.v1.SubmitProblems"])
        self.assertEqual(ours.file, "jobs/typo.sql")
        self.assertIn((line, 3), [(problem.line, problem.column) for problem in ours.problems])
        self.assertIn(f"jobs/typo.sql:{line}:3", status.message)

    def test_3_hundreds_of_mistakes_fit_into_what_a_client_takes(self):
        views = (f"CREATE VIEW v{number} AS SELECT nothing{number} FROM nowhere{number};" for number in range(300))
        for _ in range(10):
            with self.assertRaises(grpc.RpcError) as refused:
                self.control.submit("refused", "\n".join(views), "many.sql")
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT, refused.exception)

    def test_4_a_client_without_any_file_submits_and_asks_what_became_of_it(self):
        records = self.clicks.take(1_000)
        self.stack.produce(records)
        client = self.reflected()
        began = time.monotonic()
        request = {"name": "page_views", "sql": PAGE_VIEWS.read_text(), "file": "jobs/page_views.sql"}
        submitted = client.call(CONTROL, "SubmitJob", request)
        self.assertEqual(submitted["job"]["name"], "page_views")
        # What is 0 or false is left out.
        self.assertEqual(submitted.keys() & {"resumedFromEpoch", "unchanged"}, set())
        wait("a first row", self.views)
        tell("from submit to the first row in Postgres", f"{time.monotonic() - began:.1f} s")
        def job():
            return client.call(CONTROL, "GetJob", {"name": "page_views"})["job"]
        # An epoch may end in the midst of what was produced.
        wait("every record", lambda: job().get("rowsRead") == str(len(records)))
        self.assertEqual(job()["state"], "JOB_STATE_RUNNING")
        self.wait_for_the_counts()

    def test_5_a_generated_client_submits_watches_and_lists(self):
        submitted = self.control.submit("action_counts", ACTION_COUNTS.read_text(), "jobs/action_counts.sql")
        self.assertEqual((submitted.job.name, submitted.resumed_from_epoch), ("action_counts", 0))
        read = self.control.job("page_views").rows_read
        running = self.control.messages.JOB_STATE_RUNNING
        everything = (job for job in self.control.watch("action_counts") if job.state == running and job.rows_read >= read)
        self.assertEqual(next(everything).rows_read, read)
        self.assertEqual({job.name for job in self.control.jobs()}, {"page_views", "action_counts"})

    def test_6_the_command_line_works_inside_a_master(self):
        told = self.stack.millstream("submit", "jobs/action_counts.sql", "--name", "action_counts")
        self.assertEqual(told.strip(), "action_counts is running, as it is submitted; nothing changed")
        self.assertIn("action_counts", self.stack.millstream("jobs"))
        self.assertEqual(len(self.stack.millstream("workers").splitlines()), 4)


class Deaths(StackTest):
    """A hundred thousand clicks, sent while containers die and come."""

    def test_1_a_killed_worker_costs_no_click(self):
        epoch = self.control.job("page_views").epoch
        moment = self.stack.kill(self.stack.containers("worker")[1])
        self.stack.produce(self.clicks.take(CHUNK))
        self.wait_for_the_counts()
        job = self.control.job("page_views")
        self.assertGreater(job.epoch, epoch)
        self.assertTrue(job.restarts == 1 or self.is_starved(), job.restarts)
        tell("from SIGKILL of a worker to the next epoch, as the master tells it", f"{job.last_recovery_ms} ms")
        self.assertLess(moment, time.monotonic())

    def test_2_a_killed_master_costs_no_click(self):
        before = self.control.job("page_views")
        active = next(service for service in ("master", "master-standby") if self.reigns(service))
        moment = self.stack.kill(self.stack.containers(active)[0])
        wait("the standby", lambda: self.control.job("page_views").name)
        tell("from SIGKILL of the master to the first answer of the other", f"{time.monotonic() - moment:.1f} s")
        self.stack.produce(self.clicks.take(CHUNK))
        self.wait_for_the_counts()
        after = self.control.job("page_views")
        self.assertGreater(after.epoch, before.epoch)
        keeps = after.generation == before.generation
        self.assertTrue(keeps or self.is_starved(), "workers keep what they have")

    def test_3_fewer_and_more_workers_take_over_without_a_restart(self):
        restarts = self.control.job("page_views").restarts
        for workers in (1, 4):
            tell(f"scaling to {workers}", f"{self.stack.scale(workers):.1f} s")
            wait(f"{workers} workers", lambda: len(self.control.workers()) == workers)
            self.stack.produce(self.clicks.take(CHUNK))
            self.wait_for_the_counts()
        after = self.control.job("page_views").restarts
        self.assertTrue(after == restarts or self.is_starved(), after)
        self.assertTrue(all(worker.tasks for worker in self.control.workers()))
        tell("memory of each process after four times 25,000 clicks at once", self.stack.memory())


class Explanations(StackTest):
    """What traces and metrics tell of what has just happened."""

    def test_1_the_trace_of_an_epoch_leads_from_the_records_to_every_sink(self):
        before = self.control.job("page_views").epoch
        self.stack.produce(self.clicks.take(1_000))
        self.wait_for_the_counts()
        sinks = {sink.name for sink in self.control.job("page_views").sinks}
        steps = {"consume", "decode", "exchange", "operator", "ship", "snapshot", "collect", "commit", "deliver"}
        def lacks(spans):
            # What those before it had not sent yet went with the container that was killed.
            is_later = all(int(span.attributes.get("epoch", 0)) > before for span in spans)
            return epoch_lacks(spans, sinks) if is_later else ["being new"]
        spans = self.whole_trace("epoch", "page_views", steps, lacks)
        self.assertEqual(len({span.attributes["epoch"] for span in spans}), 1)
        self.assertGreater(len({span.instance for span in spans}), 1, "a master and workers")

    def test_2_the_trace_of_a_recovery_leads_from_the_loss_to_the_next_epoch(self):
        steps = {"detect", "assign", "deploy", "restore", "first_epoch"}
        for job in ("page_views", "action_counts"):
            spans = self.whole_trace("recovery", job, steps, lambda spans: untold(spans, {"job", "generation"}))
            first = next(span for span in spans if span.name == "first_epoch")
            linked = [root(self.stack.traces()[trace]) for trace in first.linked]
            # A job to which nothing came meanwhile has no such epoch.
            told = [first.attributes["epoch"]] if "epoch" in first.attributes else []
            self.assertEqual([(span.name, span.attributes["epoch"]) for span in linked], [("epoch", epoch) for epoch in told])

    def test_3_the_trace_of_a_takeover_leads_to_the_next_epoch(self):
        for job in ("page_views", "action_counts"):
            spans = self.whole_trace("takeover", job, {"first_epoch"}, lambda spans: untold(spans, {"job"}))
            self.assertTrue({"reattach", "restore"} & {span.name for span in spans})

    def test_4_no_trace_has_a_gap_whoever_was_killed(self):
        def lacking():
            return {trace: lack for trace, spans in self.stack.traces().items() if (lack := gaps(spans))}
        self.settles("whole traces", lacking)
        traces = self.stack.traces().values()
        tell("traces, all of them whole", f"{len(traces)} of {sum(map(len, traces))} spans")

    def test_5_every_process_tells_its_figures(self):
        self.assertTrue(any(
            f'millstream_job_epoch{{job="page_views"}}' in self.stack.page(port, "/metrics")
            for port in ("MASTER_HTTP_PORT", "STANDBY_HTTP_PORT")))
        self.stack.compose("--profile", "prometheus", "up", "--detach", "--wait", "--no-recreate", "prometheus")
        def sum_of(expression):
            answer = json.loads(self.stack.page("PROMETHEUS_PORT", "/api/v1/query", query=expression) or "{}")
            return sum(float(sample["value"][1]) for sample in answer.get("data", {}).get("result", []))
        processes = 2 + len(self.stack.containers("worker"))
        wait("a scrape of every process", lambda: sum_of("up") == processes)
        wait("the rows that were read", lambda: sum_of('millstream_source_rows_total{job="page_views"}') == self.control.job("page_views").rows_read)

    def test_6_prometheus_takes_every_alert_and_answers_every_panel(self):
        self.stack.compose("exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")
        def asked(path, **query):
            return json.loads(self.stack.page("PROMETHEUS_PORT", path, **query) or "{}").get("data")
        def rules():
            found = [rule for group in (asked("/api/v1/rules") or {}).get("groups", []) for rule in group["rules"]]
            return found if found and all(rule["health"] != "unknown" for rule in found) else None
        written = (ROOT / "deploy/prometheus/rules/millstream.yml").read_text().count("- alert:")
        health = [(rule["name"], rule["health"], rule.get("lastError")) for rule in wait("a look at every rule", rules, 90)]
        self.assertEqual(([rule for rule in health if rule[1] != "ok"], len(health)), ([], written))
        def empty():
            found = set()
            for board, title, expression in expressions():
                answer = asked("/api/v1/query", query=expression.replace("$job", "page_views"))
                if answer is None:
                    found.add(f"{board}: {title} (refused: {expression})")
                elif not answer["result"]:
                    found.add(f"{board}: {title}")
            return found
        def lacking():
            return sorted(empty() - WITHOUT_A_SAMPLE)
        # A rate needs two scrapes of every process.
        self.settles("a sample of every panel", lacking)
        tell("expressions of dashboards", f"{len(expressions())}, without a sample: {', '.join(sorted(empty())) or 'none'}")


class Ends(StackTest):
    """What stays, and what does not."""

    def test_1_down_and_up_keeps_everything(self):
        epoch = self.control.job("page_views").epoch
        self.stack.down()
        tell("up again", f"{self.stack.up(2):.1f} s")
        self.assertGreaterEqual(self.control.job("page_views").epoch, epoch)
        self.stack.produce(self.clicks.take(1_000))
        self.wait_for_the_counts()

    def test_2_what_is_final_equals_the_oracle_too(self):
        self.control.drain("page_views")
        self.control.drain("action_counts")
        rows = self.stack.sql("SELECT window_start, action, actions FROM action_counts")
        found = {(minute, action): int(actions) for minute, action, actions in rows}
        self.assertEqual((len(rows), found), (len(self.clicks.actions), dict(self.clicks.actions)))
        self.assertEqual(self.views(), dict(self.clicks.views))
        self.assertGreater(self.clicks.number, 90_000)

    def test_3_the_processes_own_nothing_and_write_nothing(self):
        told = self.stack.compose("exec", "-T", "worker", "sh", "-c", "id -u; touch /x 2>&1; grep CapEff /proc/1/status", check=False)
        user, refused, capabilities = told.splitlines()
        self.assertEqual(user, "65532")
        self.assertIn("Read-only file system", refused)
        self.assertEqual(capabilities.split()[1].strip("0"), "")

    def test_4_ports_are_published_on_this_machine_only(self):
        published = self.stack.compose("ps", "--format", "{{.Ports}}")
        bindings = [part for part in published.replace("\n", ", ").split(", ") if "->" in part]
        self.assertGreater(len(bindings), 5)
        self.assertTrue(all(binding.startswith("127.0.0.1:") for binding in bindings), bindings)

    def test_5_the_master_that_stands_by_leads_to_the_dashboard_of_the_other(self):
        ports = ("MASTER_HTTP_PORT", "STANDBY_HTTP_PORT")
        told = {other: self.stack.standing_by(port) for port, other in (ports, ports[::-1])}
        [reigning] = [port for port in ports if told[port]]
        self.assertIn(f'href="//127.0.0.1:{self.stack.ports[reigning]}/"', told[reigning])
        self.assertIn("page_views", self.stack.page(reigning, "/"))

    def test_6_a_stop_is_heard_at_once(self):
        began = time.monotonic()
        self.stack.compose("stop", "master", "master-standby", "worker")
        tell("stopping masters and workers", f"{time.monotonic() - began:.1f} s")
        codes = self.stack.compose("ps", "--all", "--format", "{{.Service}} {{.ExitCode}}", "master", "master-standby", "worker")
        self.assertEqual({line.split()[1] for line in codes.splitlines()}, {"0"}, codes)

    def test_7_down_with_volumes_leaves_nothing(self):
        self.stack.down("--volumes")
        self.assertEqual(self.stack.left(), [], PROJECT)


def load_tests(loader, _tests, _pattern):
    """The suites in the order in which they build on each other."""
    return unittest.TestSuite(loader.loadTestsFromTestCase(suite) for suite in (AClient, Deaths, Explanations, Ends))


if __name__ == "__main__":
    unittest.main(verbosity=2, failfast=True)
