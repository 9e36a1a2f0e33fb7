"""deploy/demo/failover.sh, run as a user runs it: it must come to its end, and the traces it links to must be the right ones.

Method: a stack of its own, from nothing, and no `.env`. MILLSTREAM_ARTIFACTS names the folder with the binary to pack.
"""

import os
import pathlib
import re
import unittest

from stack import ROOT, Stack, run
from traces import root
from waiting import wait

LINK = re.compile(r"the trace of it, a (\w+): http://127\.0\.0\.1:\d+/trace/([0-9a-f]+)")


class Failover(unittest.TestCase):
    """The demonstration."""

    def setUp(self):
        self.stack = Stack(pathlib.Path(os.environ["MILLSTREAM_ARTIFACTS"]).resolve())
        self.stack.down("--volumes")
        self.addCleanup(self.stack.down, "--volumes")
        self.stack.build()

    def test_every_count_is_equal_after_two_deaths_and_each_is_linked_to_its_trace(self):
        told = run(ROOT / "deploy" / "demo" / "failover.sh", env=self.stack.env)
        print(told, flush=True)
        self.assertIn("equal: no click was lost, none was counted twice", told)
        links = LINK.findall(told)
        self.assertEqual([name for name, _ in links], ["recovery", "takeover"])
        for name, trace in links:
            found = wait(f"the root of the {name}", lambda: root(self.stack.traces().get(trace, [])))
            self.assertEqual((found.name, found.attributes["job"]), (name, "page_views"))


if __name__ == "__main__":
    unittest.main()
