"""The dashboard of a protected cluster in a real browser: over TLS, to those alone who show a token.

Method: certificates and tokens are made by the binary; every process and verb uses them. The browser takes the master's certificate by its
key alone, and a test types the token as the password that the browser asks for, as people do.
"""

import base64
import hashlib
import http.client
import ssl
import subprocess
import unittest
import urllib.error
import urllib.request

from browser import Browser
from cluster import Cluster
from pages import BINARY, READ, SHOTS, Shared, Visit, closed, prepared
from waiting import wait

# What callers show, by their names.
TOKENS = {}


def run(*command, **more):
    """What a command printed."""
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, **more).stdout


def key_of(certificate):
    """As browsers name the key of a certificate."""
    public = run("openssl", "x509", "-in", certificate, "-noout", "-pubkey")
    return base64.b64encode(hashlib.sha256(run("openssl", "pkey", "-pubin", "-outform", "der", input=public)).digest()).decode()


def setUpModule():
    prepared("chromium-protected.log")
    folder = Shared.folder
    run(BINARY, "certificates", folder / "certificates")
    lines = {}
    for name, role in (("reader", "read"), ("operator", "admin"), ("stranger", "admin")):
        lines[name] = run(BINARY, "token", name, "--role", role, "--out", folder / f"{name}.token")
        TOKENS[name] = (folder / f"{name}.token").read_text().strip()
    (folder / "tokens").write_bytes(lines["reader"] + lines["operator"])

    def identity(name, **more):
        own = {"CA": "ca.pem", "CERT": f"{name}.pem", "KEY": f"{name}.key"}
        return {f"MILLSTREAM_TLS_{what}": str(folder / "certificates" / file) for what, file in own.items()} | more

    tokens = {"MILLSTREAM_TOKENS": str(folder / "tokens")}
    client = {"MILLSTREAM_TLS_CA": str(folder / "certificates/ca.pem"), "MILLSTREAM_TOKEN_FILE": str(folder / "operator.token")}
    identities = {"master": identity("master", **tokens), "worker": identity("worker", **tokens), "client": client}
    cluster = Shared.cluster = closed(Cluster(BINARY, folder, identities))
    cluster.worker()
    cluster.submit_clicks("clicks")
    wait("rows", lambda: cluster.job("clicks")["rows_read"] > 500)


class Protected(Visit):
    """A browser of its own for each test, for browsers remember what was typed."""
    scheme = "https"

    def setUp(self):
        super().setUp()
        keys = key_of(Shared.folder / "certificates/master.pem")
        self.browser = Browser(Shared.log, f"--ignore-certificate-errors-spki-list={keys}")
        self.addCleanup(self.browser.close)
        self.browser.ask_for_passwords()

    def test_who_types_no_token_or_a_strange_one_sees_nothing(self):
        for typed in (None, "guessed", TOKENS["stranger"]):
            asked, self.browser.password = self.browser.questions, typed
            self.go("/jobs/clicks")
            # Once where nothing is typed, and again where what was typed is refused.
            self.assertEqual(self.browser.questions - asked, 1 if typed is None else 2)
            shown = self.browser.text("body")
            self.assertIn("token", shown)
            self.assertNotIn("clicks", shown)

    def test_who_types_a_token_that_may_read_is_asked_once_and_walks_through_live_pages(self):
        browser = self.browser
        browser.password = TOKENS["reader"]
        self.go("/")
        self.assertEqual(browser.questions, 1)
        browser.wrong.clear()
        browser.follow("a[href='/jobs/clicks']")
        self.assertIn("Nothing is wrong", browser.text(".headline"))
        self.assertEqual(browser.text("#live span"), "Live")
        loads, before = browser.loads, self.number(READ)
        wait("figures that change without a reload", lambda: self.number(READ) > before + 200)
        self.assertEqual(browser.loads, loads)
        browser.screenshot(SHOTS / "job-protected.png")
        browser.follow(".tabs a:nth-child(2)")
        browser.follow("nav a[href='/workers']")
        self.assertEqual(browser.count("tbody tr"), 1)
        browser.pump()
        self.assertEqual((browser.questions, browser.wrong), (1, []))
        strange = [url for url in browser.requests if not url.startswith(f"https://{self.cluster.http}/")]
        self.assertEqual(strange, [])

    def test_one_that_stands_by_asks_too_and_leads_to_the_active_one_over_tls(self):
        browser = self.browser
        browser.password = TOKENS["reader"]
        self.go("/", self.cluster.standby_http)
        self.assertIn("stands by", browser.text("h1"))
        browser.password = TOKENS["reader"]
        browser.follow(f"a[href='//{self.cluster.http}/']")
        self.assertEqual(browser.evaluate("location.href"), f"https://{self.cluster.http}/")
        self.assertEqual(browser.count("tbody tr"), 1)

    def test_health_is_told_to_everybody_and_figures_to_those_who_may_read(self):
        trusting = ssl.create_default_context(cafile=Shared.folder / "certificates/ca.pem")

        def status(path, token=None):
            request = urllib.request.Request(f"https://{self.cluster.http}{path}")
            if token:
                request.add_header("Authorization", f"Bearer {token}")
            try:
                with urllib.request.urlopen(request, timeout=10, context=trusting) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        for path, token, expected in (("/healthz", None, 200), ("/readyz", None, 200), ("/metrics", None, 401), ("/", None, 401),
                                      ("/metrics", TOKENS["stranger"], 401), ("/metrics", TOKENS["reader"], 200),
                                      ("/jobs/clicks", TOKENS["operator"], 200)):
            self.assertEqual(status(path, token), expected, path)
        with self.assertRaises((urllib.error.URLError, http.client.HTTPException, ConnectionError)):
            urllib.request.urlopen(f"http://{self.cluster.http}/healthz", timeout=10)


if __name__ == "__main__":
    unittest.main(verbosity=2)
