"""A master, one that stands by, a worker and a few jobs, as processes on this machine, for the tests of the dashboard.

Everything is on loopback and in a folder of its own. Failure: a process that ends says so with the end of its log.
"""

import datetime
import json
import os
import pathlib
import socket
import subprocess

from waiting import Late, free_ports, wait

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS_PER_SECOND = 200

CLICKS = """
SET checkpoint_interval = '500 milliseconds';
CREATE SOURCE clicks (
  id BIGINT NOT NULL, url TEXT NOT NULL, action TEXT NOT NULL, ts TIMESTAMP NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '2 seconds'
) WITH (
  connector = 'datagen', rows_per_second = '{rate}', seed = 7,
  "fields.url.kind" = 'choice', "fields.url.values" = '/,/cart,/item,/help',
  "fields.action.kind" = 'choice', "fields.action.values" = 'view,click,purchase',
  "fields.ts.start" = '{start}', "fields.ts.step" = '{step} milliseconds'
);
CREATE VIEW first_clicks AS SELECT DISTINCT ON (id) * FROM clicks;
CREATE VIEW page_views AS
  SELECT window_start, window_end, url, count(*) AS views
  FROM TUMBLE(first_clicks, ts, INTERVAL '5 seconds')
  WHERE action <> 'purchase' -- <script>alert(1)</script>
  GROUP BY window_start, window_end, url;
CREATE SINK page_views_files FROM page_views
  WITH (connector = 'files', path = '${{LAKE_FOLDER}}', format = 'json', roll_interval = '1 second');
CREATE SINK first_clicks_nowhere FROM first_clicks WITH (connector = 'blackhole');
"""

EVENTS = """
CREATE SOURCE events (id BIGINT NOT NULL, name TEXT NOT NULL)
  WITH (connector = 'files', path = '{folder}', format = 'csv', settle = '100 milliseconds', discovery_interval = '200 milliseconds');
CREATE SINK events_nowhere FROM events WITH (connector = 'blackhole');
"""


class Cluster:
    """The processes, until `close`. Each sees what `identities` says of its kind: "master", "worker", or "client", who runs verbs."""

    def __init__(self, binary, folder, identities=None):
        self.binary, self.folder, self.processes = str(binary), pathlib.Path(folder), []
        self.identities = identities or {}
        grpc, http, standby_grpc, standby_http = free_ports(4)
        self.master, self.http = f"127.0.0.1:{grpc}", f"127.0.0.1:{http}"
        self.standby_http = f"127.0.0.1:{standby_http}"
        self.environment = {
            name: text for name, text in os.environ.items() if not name.startswith(("MILLSTREAM_", "OTEL_"))
        }
        self.environment["LAKE_FOLDER"] = str(self.folder / "lake")
        self.start("master", "--listen", self.master, "--http", self.http, "--storage", self.storage())
        self.up(self.http)
        self.start(
            "master", "--name", "standby", "--listen", f"127.0.0.1:{standby_grpc}", "--http", self.standby_http,
            "--storage", self.storage(),
        )
        self.up(self.standby_http)

    def seen_by(self, kind):
        return {**self.environment, **self.identities.get(kind, {})}

    def storage(self):
        return str(self.folder / "storage")

    def start(self, *arguments):
        name = f"{arguments[0]}-{len(self.processes)}"
        command = [self.binary, *arguments, "--until-stdin-closes"]
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, env=self.seen_by(arguments[0]), stdin=subprocess.PIPE, stdout=log, stderr=log)
        self.processes.append((name, process))
        return process

    def up(self, address):
        host, port = address.split(":")

        def answers():
            for name, process in self.processes:
                if process.poll() is not None:
                    raise Late(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            try:
                socket.create_connection((host, int(port)), 1).close()
                return True
            except OSError:
                return False

        wait(f"{address} listens", answers)

    def worker(self):
        self.start("worker", "--master", self.master)
        wait("a worker", lambda: self.json("workers"))

    def run(self, *arguments):
        done = subprocess.run(
            [self.binary, *arguments, "--master", self.master], env=self.seen_by("client"), capture_output=True, text=True, timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json"))

    def job(self, name):
        return self.json("job", name)

    def submit(self, name, sql):
        path = self.folder / f"{name}.sql"
        path.write_text(sql)
        self.run("submit", str(path), "--name", name)

    def submit_clicks(self, name):
        start = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        self.submit(name, CLICKS.format(rate=ROWS_PER_SECOND, start=start, step=1000 // ROWS_PER_SECOND))

    def submit_events(self, name, lines):
        folder = self.folder / f"{name}-input"
        folder.mkdir()
        if lines:
            (folder / "events.csv").write_text("\n".join(["id,name", *lines]) + "\n")
        self.submit(name, EVENTS.format(folder=folder))

    def close(self):
        for _, process in reversed(self.processes):
            process.stdin.close()
        for _, process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
