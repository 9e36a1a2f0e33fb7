"""What the tests of the dashboard share: the program under test, where screenshots go, and how a test goes to a page and reads it.

Called by the modules of tests, each of which makes a cluster of its own in its `setUpModule`. What `prepared` and `closed` are given is
closed when the module is through, also where it failed on the way.
"""

import os
import pathlib
import tempfile
import unittest

from cluster import ROOT

BINARY = pathlib.Path(os.environ["MILLSTREAM_BINARY"]).resolve()
SHOTS = pathlib.Path(os.environ.get("MILLSTREAM_SCREENSHOTS", ROOT / "target" / "dashboard"))
# Among the figures of a job: the rows that it has read.
READ = "main dl.figures .figure:nth-child(2) .value"


class Shared:
    """What all tests of a module use, made once."""
    folder = cluster = browser = log = None


def closed(used):
    """The same, closed after the last test of the module."""
    unittest.addModuleCleanup(used.close)
    return used


def prepared(log):
    """A folder for what the module makes, and a log of this name for what the browser says."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    Shared.folder = pathlib.Path(folder.name)
    Shared.log = closed(open(SHOTS / log, "wb"))


class Visit(unittest.TestCase):
    """A test that looks at pages."""
    scheme = "http"
    browser = None

    def setUp(self):
        self.cluster = Shared.cluster

    def go(self, path, address=None):
        self.browser.open(f"{self.scheme}://{address or self.cluster.http}{path}")

    def title(self):
        return self.browser.text("h1").split("\n")[0]

    def number(self, selector):
        return int("".join(digit for digit in self.browser.text(selector) if digit.isdigit()))


class Pages(Visit):
    """With the one browser of the module. After each test nothing may have gone wrong in it, and no other host may have been asked."""

    def setUp(self):
        super().setUp()
        self.browser = Shared.browser
        self.browser.scripts(True)
        self.browser.window(1280, 900)
        self.browser.scheme("light")
        self.browser.wrong.clear()
        self.browser.requests.clear()

    def tearDown(self):
        self.browser.pump()
        self.assertEqual(self.browser.wrong, [])
        hosts = (f"http://{self.cluster.http}/", f"http://{self.cluster.standby_http}/")
        strange = [url for url in self.browser.requests if not url.startswith(hosts)]
        self.assertEqual(strange, [])
