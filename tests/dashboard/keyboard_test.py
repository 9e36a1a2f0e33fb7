"""The dashboard without a mouse: what can be used is reached by Tab, in the order of the page, and is seen to have the focus.

Method: as dashboard_test.py, but no test clicks. Whatever has the focus is looked at: its outline, and whether something lies over it.
"""

import unittest

from browser import DOWN, ENTER, TAB, TAB_BACK, Browser
from cluster import Cluster
from pages import BINARY, Pages, Shared, closed, prepared
from waiting import wait

# More than one page of them.
REFUSED = 60
# How thin an outline may be that is seen.
OUTLINE_PX = 2

# What can be used on a page, in its order, and which of it has the focus: `at` is its place. It is `free` where no other element lies
# over its upper or its lower edge; of what does not fit into the window, over the middle of its part there.
STOPS = """(() => {
  const usable = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]:not([tabindex='-1'])";
  const stops = [...document.querySelectorAll(usable)].filter(it => it.checkVisibility());
  const it = document.activeElement;
  const style = getComputedStyle(it);
  const box = it.getClientRects()[0] ?? new DOMRect();
  const middle = (from, to, most) => (Math.max(from, 0) + Math.min(to, most)) / 2;
  const x = middle(box.left, box.right, innerWidth);
  const fits = box.top >= 0 && box.bottom <= innerHeight;
  const ys = fits ? [box.top + 1, box.bottom - 1] : [middle(box.top, box.bottom, innerHeight)];
  return {
    count: stops.length,
    at: stops.indexOf(it),
    what: it.cloneNode(false).outerHTML,
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    free: ys.every(y => it.contains(document.elementFromPoint(x, y))),
  };
})()"""


def setUpModule():
    prepared("chromium-keyboard.log")
    cluster = Shared.cluster = closed(Cluster(BINARY, Shared.folder))
    Shared.browser = closed(Browser(Shared.log))
    cluster.worker()
    cluster.submit_clicks("clicks")
    cluster.submit_events("refused", [f"no-number-{n},one" for n in range(REFUSED)])
    wait("rows", lambda: cluster.job("clicks")["rows_read"] > 500)
    wait("refused rows", lambda: cluster.job("refused")["rows_rejected"] == REFUSED)


class Keyboard(Pages):
    """Tab, Enter and the arrows."""

    def step(self, key):
        """Moves the focus; what has it then, which must be seen."""
        self.browser.key(key)
        stop = self.browser.evaluate(STOPS)
        self.assertGreaterEqual(stop["at"], 0, f"{stop['what']} has the focus, and is nothing to be used")
        self.assertGreaterEqual(stop["outline"], OUTLINE_PX, f"{stop['what']} does not show that it has the focus")
        self.assertTrue(stop["free"], f"something lies over {stop['what']}, which has the focus")
        return stop

    def reach(self, selector, key=TAB):
        """Moves the focus on until this has it."""
        for _ in range(self.browser.evaluate(STOPS)["count"]):
            self.step(key)
            if self.browser.evaluate(f"document.activeElement.matches(`{selector}`)"):
                return
        self.fail(f"no key leads to {selector}")

    def enter(self, selector, key=TAB):
        """Reaches a link or a button, and follows it."""
        self.reach(selector, key)
        self.browser.loaded(lambda: self.browser.key(ENTER))

    def test_the_first_key_leads_past_the_navigation(self):
        browser = self.browser
        self.go("/jobs/clicks")
        self.step(TAB)
        self.assertEqual(browser.evaluate("document.activeElement.className"), "skip")
        self.assertGreaterEqual(browser.evaluate("document.activeElement.getBoundingClientRect().top"), 0)
        browser.key(ENTER)
        wait("the content", lambda: browser.evaluate("document.activeElement.id") == "content")
        self.step(TAB)
        self.assertEqual(browser.evaluate("document.activeElement.innerText"), "Jobs")

    def test_tab_leads_to_everything_in_the_order_of_the_page_and_back(self):
        for width in (1280, 400):
            self.browser.window(width, 900)
            for path in ("/", "/jobs/clicks", "/jobs/refused/dead-letters", "/workers"):
                self.go(path)
                places = range(self.browser.evaluate(STOPS)["count"])
                self.assertGreater(len(places), 4)
                with self.subTest(path=path, width=width):
                    self.assertEqual([self.step(TAB)["at"] for _ in places], list(places))
                    back = list(reversed(places[:-1]))
                    self.assertEqual([self.step(TAB_BACK)["at"] for _ in back], back)

    def test_a_job_its_parts_and_its_dead_letters_are_reached_and_opened_by_keys_alone(self):
        browser = self.browser
        self.go("/")
        self.enter("tbody a[href='/jobs/clicks']")
        self.assertIn("clicks", self.title())
        for details, within in (("section:has(#graph) summary", "[aria-label='Stages']"), ("section:has(#sql) summary", "pre.plan")):
            self.reach(details)
            browser.key(ENTER)
            wait("opened details", lambda: browser.evaluate("document.activeElement.parentElement.open"))
            self.step(TAB)
            self.assertTrue(browser.evaluate(f"document.activeElement.matches(`{within}`)"))
        self.enter("nav.tabs a:nth-child(2)", TAB_BACK)
        self.assertIn("No row of this job has been refused", browser.text("main"))
        self.enter("nav[aria-label=Main] a:first-child")
        self.enter("a[href='/jobs/refused/dead-letters']")
        self.assertEqual(browser.count("tbody tr"), 50)
        self.enter("a[rel=next]")
        self.assertEqual(browser.count("tbody tr"), REFUSED - 50)

    def test_lists_are_filtered_and_a_page_is_halted_by_keys_alone(self):
        browser = self.browser
        self.go("/")
        self.enter("a.chip[href='?state=running']")
        self.reach("#q")
        browser.type("ref")
        browser.loaded(lambda: browser.key(ENTER))
        self.assertEqual((browser.count("tbody tr"), browser.evaluate("location.search")), (1, "?q=ref&state=running"))
        self.reach(".status button")
        browser.key(ENTER)
        wait("the word", lambda: browser.text("#live") == "Paused")
        self.enter("tbody a[href='/jobs/refused/dead-letters']")
        self.reach("#code")
        for _ in range(browser.count("#code option")):
            if browser.evaluate("document.activeElement.value") != "late":
                browser.key(DOWN)
        self.enter("form button")
        self.assertIn("No dead letter matches", browser.text("main"))
        self.assertIn("code=late", browser.evaluate("location.search"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
