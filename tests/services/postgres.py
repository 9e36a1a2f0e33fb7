"""PostgreSQL, the machine's own version: real durability, TCP on loopback only, no socket.

User, password and database are all `millstream`; the user is a superuser.
"""

import hashlib
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import time
import urllib.parse

import containers
import native
from install import apt, as_root
from service import Service
from support import HOST, Failure, tail

# User, password and database.
WHO = "millstream"
CONNECTIONS_MAX = 200
ORPHAN_SECONDS_MAX = 10
# Keeps the package from starting a server of its own on the default port.
CLUSTER_CONFIGURATION = pathlib.Path("/etc/postgresql-common/createcluster.conf")
PROTOCOL_VERSION_3 = 196608


class Postgres(Service):
    """One PostgreSQL server."""

    name, variable, default_ports = "postgres", "POSTGRES_URL", (5432,)
    stop_signal = signal.SIGINT   # "fast": does not wait for clients
    account = "postgres"          # it refuses to run as root
    IMAGE = "postgres:15"

    def install(self, cache):
        if programs() is None:
            keep_package_quiet()
            apt("postgresql", "PostgreSQL is not installed")
        if programs() is None:
            raise Failure("the package postgresql brought no `initdb`")

    def home(self, box):
        """The folder of the data: in the box, or under /tmp where the account cannot get in."""
        reachable = all(p.stat().st_mode & 0o001 for p in [box.root, *box.root.parents])
        if os.getuid() == 0 and not reachable:
            return pathlib.Path(f"/tmp/millstream-postgres-{box.label}")
        return box.root / self.name

    def prepare(self, box, instance):
        home = self.home(box)
        data = home / "data"
        if (data / "PG_VERSION").exists():
            clear_crash(data)
            return
        # What a start that was cut off has left would stop the next one.
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "password").write_text(WHO)
        account = native.as_user(self.account)
        if account:
            for path in (home, home / "password"):
                shutil.chown(path, account["user"], account["group"])
        with open(box.log(instance), "a") as log:
            create_cluster(home, log, account)
            done = create_database(data, log, account)
        if done.returncode:
            raise Failure(f"{instance}: first setup failed:\n{tail(box.log(instance))}")

    def command(self, box, instance):
        options = {"listen_addresses": HOST, "port": box.port(5432),
                   "unix_socket_directories": "", "max_connections": CONNECTIONS_MAX}
        return [programs() / "postgres", "-D", self.home(box) / "data",
                *(f"--{key}={value}" for key, value in options.items())]

    def wipe(self, box, instance):
        shutil.rmtree(self.home(box), ignore_errors=True)

    def container(self, box, instance):
        env = {"POSTGRES_USER": WHO, "POSTGRES_PASSWORD": WHO, "POSTGRES_DB": WHO,
               "POSTGRES_INITDB_ARGS": "--locale=C.UTF-8 --encoding=UTF8"}
        return containers.Container(self.IMAGE, {box.port(5432): 5432}, env,
                                    ["-c", f"max_connections={CONNECTIONS_MAX}"])

    def is_ready(self, box, instance):
        return accepts_clients(box.port(5432))

    def exports(self, box):
        port = box.port(5432)
        return {self.variable: f"postgres://{WHO}:{WHO}@{HOST}:{port}/{WHO}", "PGHOST": HOST,
                "PGPORT": port, "PGUSER": WHO, "PGPASSWORD": WHO, "PGDATABASE": WHO}

    def endpoints(self, address):
        url = urllib.parse.urlsplit(address)
        return [(url.hostname or "localhost", url.port or 5432)]


def programs():
    """The folder of the newest server's programs, which Debian keeps off PATH; None without."""
    versions = pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    return pathlib.Path(found).parent if found else None


def keep_package_quiet():
    """Have the distribution's package install the programs and start nothing."""
    root = as_root()
    if root is None or CLUSTER_CONFIGURATION.exists():
        return
    subprocess.run([*root, "mkdir", "-p", CLUSTER_CONFIGURATION.parent], check=True)
    subprocess.run([*root, "tee", CLUSTER_CONFIGURATION], input=b"create_main_cluster = false\n",
                   stdout=subprocess.DEVNULL, check=True)


def create_cluster(home, log, account):
    """`initdb`, from the password file in `home`."""
    done = subprocess.run([programs() / "initdb", "-D", home / "data", "-U", WHO, "--pwfile",
                           home / "password", "--auth=scram-sha-256", "-E", "UTF8",
                           "--locale=C.UTF-8"], stdout=log, stderr=log, cwd="/", **account)
    if done.returncode:
        raise Failure(f"initdb failed:\n{tail(log.name)}")


def create_database(data, log, account):
    """Create our database in the stopped cluster, so that no client program is needed."""
    return subprocess.run([programs() / "postgres", "--single", "-D", data, "postgres"],
                          input=f"create database {WHO}\n".encode(), stdout=log, stderr=log,
                          cwd="/", **account)


def clear_crash(data):
    """After a SIGKILL: wait for the orphaned backends, then drop the lock file of a dead owner.

    PostgreSQL would do both itself, but it takes a zombie for alive; those are common where
    pid 1 is no real init.
    """
    deadline = time.monotonic() + ORPHAN_SECONDS_MAX
    while backends := processes_in(data):
        if time.monotonic() > deadline:
            raise Failure(f"postgres: process {backends[0]} of the killed server still uses {data}")
        time.sleep(0.05)
    lock = data / "postmaster.pid"
    if lock.exists() and not native.start_time(lock.read_text().split()[0]):
        lock.unlink()


def processes_in(folder):
    """The pids of the live processes whose working folder this is."""
    wanted, found = os.path.realpath(folder), []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == wanted:
                found.append(process.name)
        except OSError:
            continue   # it ended, or belongs to somebody else
    return found


def accepts_clients(port):
    """Whether the server gets as far as asking for a password.

    While it starts or recovers, it answers the same first message with an error.
    """
    body = struct.pack(">i", PROTOCOL_VERSION_3) + f"user\0{WHO}\0database\0{WHO}\0\0".encode()
    try:
        with socket.create_connection((HOST, port), timeout=2) as link:
            link.sendall(struct.pack(">i", len(body) + 4) + body)
            return link.recv(1) == b"R"
    except OSError:
        return False
