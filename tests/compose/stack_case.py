"""What the tests of the one stack share: the stack, the clients and the oracle that they use, and what several of them ask."""

import unittest

from traces import gaps, root
from waiting import Late, wait


def tell(what, value):
    """A figure, for whoever reads the output."""
    print(f"figure: {what}: {value}", flush=True)


class Shared:
    """What all suites use, made once."""
    stack = control = clicks = None


class StackTest(unittest.TestCase):
    """A test of the one stack."""

    def setUp(self):
        self.stack, self.control, self.clicks = Shared.stack, Shared.control, Shared.clicks

    def reigns(self, service):
        """Whether it is the master that everybody talks to now."""
        told = self.stack.compose("exec", "-T", service, "millstream", "healthcheck", "--master", "127.0.0.1:7070", check=False)
        return told.strip().endswith("serves")

    def is_starved(self):
        """Whether this machine had so much else to do that a master lost a worker which lived: a rewind more is no defect then."""
        return "workers are silent" in self.stack.compose("logs", "--no-color", "master", "master-standby", "worker")

    def views(self):
        """The table of page views, as the oracle writes it."""
        if not self.stack.has_table("fact_page_views"):
            return {}
        rows = self.stack.sql("SELECT window_start, url, views FROM fact_page_views")
        return {(minute, url): int(views) for minute, url, views in rows}

    def wait_for_the_counts(self):
        """Until the table holds exactly what was sent."""
        expected = dict(self.clicks.views)
        wait("counts that equal the oracle", lambda: self.views() == expected, 90)
        found = self.stack.sql("SELECT count(*) FROM click_errors")
        self.assertEqual(found, [[str(self.clicks.rejected)]])

    @staticmethod
    def settles(what, lacking):
        """Waits until nothing is lacking; says what is, where it goes on so."""
        try:
            wait(what, lambda: not lacking())
        except Late as late:
            raise Late(f"{late}: {lacking()}") from None

    def whole_trace(self, name, job, steps, lacks=lambda spans: []):
        """Waits until the collector holds a trace of the job whose root is called so, and which lacks nothing; its spans."""
        whole = []

        def lacking():
            found = []
            for spans in self.stack.traces().values():
                first = root(spans)
                if first and first.name == name and first.attributes.get("job") == job:
                    found.append([*gaps(spans), *sorted(steps - {span.name for span in spans}), *lacks(spans)])
                    whole[:] = spans
                    if not found[-1]:
                        return []
            return found or ["there is none"]

        self.settles(f"a whole trace of {name} of {job}", lacking)
        return whole
