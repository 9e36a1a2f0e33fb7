"""Chromium without a window, as the tests of the dashboard use it: it opens pages, clicks, types and looks.

Speaks the DevTools protocol over a pair of pipes, so it needs nothing but the browser. Keeps what went wrong in a page: errors in
its console, requests that failed, requests to other hosts. Failure: what does not come in time is `Late`.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile

from waiting import wait

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
TAB = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
# With Shift.
TAB_BACK = {**TAB, "modifiers": 8}
DOWN = {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40}


def program():
    """The browser of this machine, or nothing."""
    named = os.environ.get("MILLSTREAM_CHROMIUM")
    found = [named] if named else [shutil.which(name) for name in PROGRAMS]
    return next((path for path in found if path), None)


class Browser:
    """A browser with one page."""

    def __init__(self, log, *more_options):
        self.folder = tempfile.TemporaryDirectory(prefix="millstream-chromium-", ignore_cleanup_errors=True)
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        options = [
            "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--hide-scrollbars", "--window-size=1280,900", f"--user-data-dir={self.folder.name}", *more_options,
        ]
        if os.geteuid() == 0:
            # Its sandbox refuses to be started by root, as containers and CI do.
            options.append("--no-sandbox")

        def at_three_and_four():
            # The browser reads from 3 and writes to 4, whatever these were here.
            read, write = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read, 3)
            os.dup2(write, 4)

        self.process = subprocess.Popen(
            [program(), *options, "about:blank"], preexec_fn=at_three_and_four, close_fds=False,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.answers, self.session = b"", 0, {}, None
        self.wrong, self.requests, self.loads = [], [], 0
        self.password, self.questions = None, 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        os.close(self.write)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.read)
        self.folder.cleanup()

    # The protocol.

    def say(self, method, **parameters):
        """Sends a command; the number of its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        return self.number

    def call(self, method, **parameters):
        number = self.say(method, **parameters)
        answer = wait(method, lambda: self.pump() or self.answers.pop(number, None))
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def pump(self):
        """Takes what the browser has said."""
        while select.select([self.read], [], [], 0.02)[0]:
            data = os.read(self.read, 1 << 20)
            if not data:
                raise AssertionError("the browser ended")
            self.buffer += data
        *whole, self.buffer = self.buffer.split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.hear(message["method"], message["params"])

    def hear(self, event, told):
        if event == "Fetch.requestPaused":
            self.say("Fetch.continueRequest", requestId=told["requestId"])
        elif event == "Fetch.authRequired":
            self.questions += 1
            self.say("Fetch.continueWithAuth", requestId=told["requestId"], authChallengeResponse=self.answer_to_question())
        elif event == "Page.loadEventFired":
            self.loads += 1
        elif event == "Runtime.exceptionThrown":
            self.wrong.append(f"exception: {told['exceptionDetails']}")
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.wrong.append(f"console: {told['args']}")
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.wrong.append(f"log: {told['entry'].get('url')} {told['entry']['text']}")
        elif event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Network.responseReceived" and told["response"]["status"] >= 400:
            self.wrong.append(f"response: {told['response']['status']} {told['response']['url']}")
        elif event == "Network.loadingFailed" and not told.get("canceled"):
            self.wrong.append(f"request failed: {told['errorText']}")

    def answer_to_question(self):
        """What a person types where the browser asks for a name and a password: one that is refused is not typed a second time."""
        password, self.password = self.password, None
        if password is None:
            return {"response": "CancelAuth"}
        return {"response": "ProvideCredentials", "username": "anybody", "password": password}

    def ask_for_passwords(self):
        """From now on `password` is what is typed at the next question."""
        self.call("Fetch.enable", handleAuthRequests=True)

    # A page.

    def evaluate(self, expression):
        """A value of the page, also where its own scripts may not run."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{expression}: {done['exceptionDetails']['text']}")
        return done["result"].get("value")

    def loaded(self, act):
        """Does what leads to another page, and waits for it."""
        before = self.loads
        act()
        wait("a page", lambda: self.pump() or self.loads > before)

    def open(self, address):
        self.loaded(lambda: self.call("Page.navigate", url=address))

    def reload(self):
        self.loaded(lambda: self.call("Page.reload"))

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def count(self, selector):
        return self.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")

    def press(self, selector):
        """Clicks with the mouse, where the element is seen."""
        at = self.evaluate(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); if (!it) return null;"
            "it.scrollIntoView({block: 'center'}); const box = it.getBoundingClientRect();"
            "return [box.x + Math.min(box.width / 2, 20), box.y + box.height / 2]; })()"
        )
        if at is None:
            raise AssertionError(f"{selector} is not in {self.evaluate('location.href')}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def follow(self, selector):
        self.loaded(lambda: self.press(selector))

    def type(self, text):
        self.call("Input.insertText", text=text)

    def key(self, key):
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{name: key[name] for name in key if name != "text"})

    def scripts(self, allowed):
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def window(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))
