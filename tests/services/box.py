"""The box: the folder with the data, logs and records of one running copy of the services.

Owns the port offset (fixed when the folder is first used), the records of what was started here,
and the list of `run` commands that use it now. Several boxes run side by side; a file lock keeps
two commands on one box apart.
"""

import hashlib
import json
import os
import pathlib
import shutil

import native
from support import Failure, is_free, locked, say

DEFAULTS = {"offset": 0, "brokers": 1, "kept": []}
# A port offset keeps 16686 + offset below 65536 and the thousands of two boxes apart.
OFFSET_STEP, OFFSET_MAX = 1000, 17000


class Box:
    """One copy of the services; `cache` holds the programs that it runs."""

    def __init__(self, root, cache, wanted_offset=None):
        self.root, self.cache = pathlib.Path(root).absolute(), cache
        self.wanted_offset = wanted_offset
        self.settings_file = self.root / "settings.json"
        self.load()

    def load(self):
        """Read the settings; a box that was never opened has the defaults."""
        self.settings = DEFAULTS | read_json(self.settings_file, {})

    def save(self):
        """Write the settings."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.settings_file.write_text(json.dumps(self.settings))

    def lock(self):
        """Keeps other commands off this box while it changes."""
        return locked(self.root / ".lock")

    @property
    def label(self):
        """A short name that no other box on this machine has."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    def open(self, default_ports):
        """Create the folder and fix its port offset, once."""
        self.load()
        if self.settings_file.exists():
            have = self.settings["offset"]
            if self.wanted_offset not in (None, "auto", str(have)):
                raise Failure(f"{self.root} uses port offset {have}; take another --dir, "
                              "or `down all --wipe` first")
        elif self.wanted_offset == "auto":
            self._claim_offset(default_ports)
        else:
            self.settings["offset"] = int(self.wanted_offset or 0)
            self.save()

    def _claim_offset(self, default_ports):
        """Take the first offset whose ports are free and that no other box has."""
        claims_file = self.cache.root / "offsets.json"
        with locked(self.cache.root / ".offsets.lock"):
            claims = {root: offset for root, offset in read_json(claims_file, {}).items()
                      if pathlib.Path(root, "settings.json").exists()}
            for offset in range(0, OFFSET_MAX, OFFSET_STEP):
                if offset in claims.values():
                    continue
                if all(is_free(port + offset) for port in default_ports):
                    claims_file.write_text(json.dumps(claims | {str(self.root): offset}))
                    # A claim lasts as long as the settings file: make it before the lock goes.
                    self.settings["offset"] = offset
                    self.save()
                    return
        raise Failure(f"no free port offset below {OFFSET_MAX}")

    def port(self, default):
        """Where a service listens here."""
        return default + self.settings["offset"]

    def folder(self, instance):
        """The folder of one instance, made on demand."""
        path = self.root / instance
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, instance):
        """The log of an instance that runs as a process."""
        return self.root / f"{instance}.log"

    def record(self, instance, **facts):
        """Remember how an instance was started."""
        file = self._record_file(instance)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(facts))

    def facts(self, instance):
        """What `record` remembered; empty for an instance that was never started here."""
        return read_json(self._record_file(instance), {})

    def recorded(self, service_name):
        """Every instance of a service that was ever started here."""
        names = sorted(file.stem for file in self._record_file("").parent.glob("*.json"))
        return [name for name in names if name.partition(".")[0] == service_name]

    def is_used(self):
        """Whether anything was ever started here and not wiped."""
        return any(self._record_file("").parent.glob("*.json"))

    def forget(self, instance):
        """Delete the data, the log and the record of an instance that is down."""
        shutil.rmtree(self.root / instance, ignore_errors=True)
        self.log(instance).unlink(missing_ok=True)
        self._record_file(instance).unlink(missing_ok=True)
        say(f"{instance} wiped")

    def close(self):
        """Give the port offset back."""
        self.settings_file.unlink(missing_ok=True)
        self.load()

    def _record_file(self, instance):
        return self.root / "instances" / f"{instance}.json"

    def enter_run(self):
        """Count this process among the `run` commands that use the box."""
        file = self._run_file(os.getpid())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(native.start_time(os.getpid()) or "")

    def leave_run(self):
        """Undo `enter_run`."""
        self._run_file(os.getpid()).unlink(missing_ok=True)

    def has_runs(self):
        """Whether a `run` command uses the box now; one that was killed does not count."""
        return any(native.start_time(file.name) == file.read_text()
                   for file in self._run_file("").glob("*"))

    def _run_file(self, pid):
        return self.root / "runs" / str(pid)


def read_json(path, default):
    """The content of a JSON file, or `default` where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return default
