"""Clicks, and what they come to: counted here, by nothing that Millstream is made of."""

import collections
import datetime
import json
import random

BEGIN = datetime.datetime(2026, 5, 1, 10)
ACTIONS = ("view", "click", "purchase")
STEP_MS = 50
# Clicks come a little out of order, and never late.
JITTER_MS = 20_000


class Clicks:
    """A stream of records that can be sent in pieces, and the tables that it has to become."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.number = 0
        self.views = collections.Counter()
        self.actions = collections.Counter()
        self.rejected = 0

    def take(self, count):
        """The next records, about as many: one of ten comes twice, one of a hundred is bad."""
        records = []
        while len(records) < count:
            self.number += 1
            records += self.made()
        return records

    def made(self):
        if self.number % 100 == 0:
            return [self.bad()]
        jitter = self.random.randrange(JITTER_MS)
        moment = BEGIN + datetime.timedelta(milliseconds=self.number * STEP_MS - jitter)
        action = self.random.choice(ACTIONS)
        url = f"/product/{self.random.randrange(50)}"
        record = json.dumps({"eventid": f"e{self.number}", "userid": f"u{self.random.randrange(1000)}", "url": url,
                             "timestamp": moment.isoformat(timespec="milliseconds"), "action": action})
        minute = moment.replace(second=0, microsecond=0).isoformat(sep=" ")
        copies = 2 if self.number % 10 == 0 else 1
        self.actions[minute, action] += copies
        if action == "view":
            self.views[minute, url] += 1
        return [record] * copies

    def bad(self):
        self.rejected += 1
        return self.random.choice(("{\"eventid\": \"e", "{\"eventid\": \"x\", \"timestamp\": \"2026-05-01T10:00:00\", \"action\": \"view\"}",
                                   "{\"eventid\": \"x\", \"url\": \"/\", \"timestamp\": \"2026-05-01T10:00:00\", \"action\": \"hover\"}"))
