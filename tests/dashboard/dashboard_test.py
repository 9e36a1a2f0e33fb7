"""Every page of the dashboard in a real browser, clicked through as people do, with scripts and without.

Method: one cluster and one browser for all tests. After each test nothing may have gone wrong in the browser: no error in its console, no
request that failed, none to another host. Screenshots of every page, light and dark, are left in MILLSTREAM_SCREENSHOTS.
"""

import unittest

from browser import ENTER, Browser
from cluster import Cluster
from pages import BINARY, READ, SHOTS, Pages, Shared, closed, prepared
from waiting import wait

REFUSED = 120
EVIL = "<img src=x onerror=document.title=1>"


def setUpModule():
    prepared("chromium.log")
    cluster = Shared.cluster = closed(Cluster(BINARY, Shared.folder))
    browser = Shared.browser = closed(Browser(Shared.log))
    cluster.submit_clicks("waiting")
    browser.open(f"http://{cluster.http}/jobs/waiting")
    Shared.waiting = browser.text(".headline")
    cluster.run("stop", "waiting")
    cluster.worker()
    cluster.submit_clicks("clicks")
    cluster.submit_events("refused", [f"no-number-{n},{EVIL}" for n in range(REFUSED)] + ["1,one"])
    cluster.submit_events("quiet", [])
    wait("rows", lambda: cluster.job("clicks")["rows_read"] > 2_000)
    wait("refused rows", lambda: cluster.job("refused")["rows_rejected"] == REFUSED)


class Walk(Pages):
    """From page to page, by clicking alone."""

    def walk(self):
        browser = self.browser
        self.go("/")
        self.assertEqual(browser.count("tbody tr"), 4)
        browser.follow("a[href='/jobs/clicks']")
        self.assertIn("clicks", self.title())
        self.assertIn("Nothing is wrong", browser.text(".headline"))
        self.assertGreaterEqual(browser.count("svg .node"), 5)
        self.assertIn("<script>alert(1)</script>", browser.text("ol.sql"))
        self.assertGreater(browser.count(".bars rect.collect"), 0)
        for heading in ("Graph", "Sinks", "Epochs", "Sources", "Splits", "SQL"):
            self.assertIn(heading, browser.evaluate("[...document.querySelectorAll('h2, h3')].map(it => it.innerText).join()"))
        browser.follow(".tabs a:nth-child(2)")
        self.assertIn("No row of this job has been refused", browser.text("main"))
        browser.follow(".path a")
        browser.follow("a[href='/jobs/refused/dead-letters']")
        self.assertEqual(browser.count("tbody tr"), 50)
        self.assertIn(EVIL, browser.text("pre.payload"))
        browser.follow("a[rel=next]")
        browser.follow("a[rel=next]")
        self.assertEqual(browser.count("tbody tr"), REFUSED - 100)
        browser.follow("nav a[href='/workers']")
        self.assertEqual(browser.count("tbody tr"), 1)
        browser.follow("a[href='/jobs/quiet']")
        self.assertIn("No epoch with rows is committed yet", browser.text(".headline"))
        browser.follow("a.brand")
        self.assertEqual(self.title(), "Jobs")

    def test_every_page_is_reached_by_clicks_where_scripts_run(self):
        self.walk()

    def test_every_page_is_reached_and_reads_the_same_without_scripts(self):
        self.browser.scripts(False)
        self.walk()
        self.assertIn("Not live", self.browser.text("#live"))
        self.go("/jobs/clicks")
        before = self.number(READ)
        wait("more rows", lambda: self.cluster.job("clicks")["rows_read"] > before + 1_000)
        self.assertEqual(self.number(READ), before)
        self.browser.follow("#live a")
        self.assertGreater(self.number(READ), before)

    def test_jobs_are_filtered_by_state_and_name(self):
        browser = self.browser
        for scripts in (True, False):
            browser.scripts(scripts)
            self.go("/")
            browser.follow("a.chip[href='?state=running']")
            self.assertEqual(browser.count("tbody tr"), 3)
            browser.press("#q")
            browser.type("qui")
            browser.loaded(lambda: browser.key(ENTER))
            self.assertEqual(browser.count("tbody tr"), 1)
            self.assertIn("quiet", browser.text("tbody"))
            self.assertIn("state=running", browser.evaluate("location.search"))

    def test_dead_letters_are_filtered_by_code_and_relation(self):
        browser = self.browser
        self.go("/jobs/refused/dead-letters")
        browser.evaluate("document.getElementById('code').value = 'late'")
        browser.follow("form button")
        self.assertIn("No dead letter matches", browser.text("main"))
        self.go("/jobs/refused/dead-letters?code=type_mismatch&owner=events")
        self.assertEqual(browser.count("tbody tr"), 50)
        self.assertEqual(browser.evaluate("document.getElementById('owner').value"), "events")

    def test_a_job_without_a_worker_said_so(self):
        self.assertIn("No worker has joined", Shared.waiting)

    def test_one_that_stands_by_leads_to_the_active_one(self):
        browser = self.browser
        browser.open(f"http://{self.cluster.standby_http}/")
        self.assertIn("stands by", self.title())
        # The answer's status says it too, which the browser takes down as an error.
        self.assertTrue(all("503" in wrong for wrong in browser.wrong), browser.wrong)
        browser.wrong.clear()
        browser.follow(f"a[href='//{self.cluster.http}/']")
        self.assertEqual(self.title(), "Jobs")


class Live(Pages):
    """What the script does, and what it leaves alone."""

    def test_figures_change_without_a_reload_and_what_a_person_has_done_stays(self):
        browser = self.browser
        self.go("/jobs/clicks")
        browser.evaluate("window.mark = 1")
        self.assertEqual(browser.text("#live span"), "Live")
        browser.press("section details summary")
        browser.evaluate("document.querySelector('.tall').scrollTop = 40")
        browser.evaluate("document.querySelector('nav.tabs a').focus({preventScroll: true}); scrollTo(0, 300)")
        loads, before = browser.loads, self.number(READ)
        wait("another figure", lambda: self.number(READ) > before)
        wait("another", lambda: self.number(READ) > before + 500)
        self.assertEqual(browser.evaluate("window.mark"), 1)
        self.assertEqual(browser.loads, loads)
        self.assertTrue(browser.evaluate("document.querySelector('section details').open"))
        self.assertEqual(browser.evaluate("document.activeElement.innerText"), "Overview")
        self.assertEqual(browser.evaluate("[scrollY, document.querySelector('.tall').scrollTop].join()"), "300,40")

    def test_it_stops_while_paused_or_hidden_and_goes_on_afterwards(self):
        browser = self.browser
        hide = (
            "Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {}}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        for stop, go_on in (
            (lambda: browser.press(".status button"), lambda: browser.press(".status button")),
            (lambda: browser.evaluate(hide.format("true")), lambda: browser.evaluate(hide.format("false"))),
        ):
            self.go("/jobs/clicks")
            stop()
            asked, before = len(browser.requests), self.cluster.job("clicks")["rows_read"]
            # Longer than from one fetch to the next.
            wait("time to pass", lambda: self.cluster.job("clicks")["rows_read"] > before + 1_000)
            browser.pump()
            self.assertEqual(browser.requests[asked:], [])
            go_on()
            wait("another fetch", lambda: browser.pump() or len(browser.requests) > asked)

    def test_a_paused_sink_is_told_while_the_page_is_open(self):
        browser = self.browser
        self.go("/jobs/clicks")
        self.cluster.run("sink", "pause", "clicks", "first_clicks_nowhere")
        wait("the sentence", lambda: browser.text(".headline") == "Sink first_clicks_nowhere is paused.")
        self.cluster.run("sink", "resume", "clicks", "first_clicks_nowhere")
        wait("another", lambda: "Nothing is wrong" in browser.text(".headline"))


class Looks(Pages):
    """Screenshots for people, and what must hold for all of them."""

    PAGES = {
        "jobs": "/", "job": "/jobs/clicks", "quiet": "/jobs/quiet", "refused": "/jobs/refused",
        "dead-letters": "/jobs/refused/dead-letters", "workers": "/workers",
    }

    def test_every_page_in_light_and_dark_wide_and_narrow(self):
        browser = self.browser
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 400)):
            browser.scheme(scheme)
            browser.window(width, 900)
            for name, path in self.PAGES.items():
                self.go(path)
                wide = browser.evaluate("document.documentElement.scrollWidth")
                self.assertLessEqual(wide, width, f"{name} scrolls sideways")
                browser.screenshot(SHOTS / f"{name}-{scheme}-{width}.png")
