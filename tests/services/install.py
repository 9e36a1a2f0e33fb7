"""Installing programs: a cache of what was built or fetched, and the distribution's packages.

Called by the services' `install`. Failure: a `Failure` that names the missing program or shows
the end of the failed step's log; a folder of the cache is there whole or not at all.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import time

from support import Failure, locked, say, tail

# A step of an install may wait for a slow network or compile for half an hour, never for ever.
STEP_SECONDS_MAX = 3600


class Cache:
    """Installed programs, one folder for each program and version."""

    def __init__(self, root):
        self.root = pathlib.Path(root).expanduser().absolute()

    def get(self, key, build):
        """The folder of a program; when it is not there, `build(folder, run)` fills it first."""
        folder = self.root / key
        if folder.exists():
            return folder
        with locked(self.root / f".{key}.lock"):
            if not folder.exists():
                self._fill(folder, build)
        return folder

    def _fill(self, folder, build):
        partial, log = self.root / f"{folder.name}.partial", self.root / f"{folder.name}.log"
        started = time.monotonic()
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        log.write_text("")
        say(f"installing {folder.name} (log: {log})")

        def run(*command, **env):
            run_logged(log, command, partial, env)

        build(partial, run)
        partial.rename(folder)
        say(f"installed {folder.name} in {time.monotonic() - started:.0f} s")


def run_logged(log, command, folder, env):
    """One step of a build; its output goes to the log, its failure to the user."""
    command = list(map(str, command))
    with open(log, "a") as output:
        done = subprocess.run(command, cwd=folder, env=os.environ | env,
                              stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                              timeout=STEP_SECONDS_MAX)
    if done.returncode:
        raise Failure(f"`{shlex.join(command)}` failed:\n{tail(log)}")


def need(program, package):
    """The path of a program; a missing one is installed from the distribution."""
    if not shutil.which(program):
        apt(package, f"{program} is not on PATH")
    found = shutil.which(program)
    if not found:
        raise Failure(f"the package {package} brought no program `{program}`")
    return found


def need_version(program, package, at_least, *question):
    """As `need`, and the program answers `question` with a version of at least this."""
    found = need(program, package)
    answer = subprocess.run([found, *question], capture_output=True, text=True)
    version = re.search(r"(\d+)\.(\d+)", answer.stdout + answer.stderr)
    have = tuple(map(int, version.groups())) if version else (0, 0)
    if have < at_least:
        raise Failure(f"{found} is version {have[0]}.{have[1]}: "
                      f"{at_least[0]}.{at_least[1]} or newer is needed")
    return found


def apt(package, why):
    """Install a package of the distribution, as root or through a sudo that asks nothing."""
    root = as_root()
    if root is None or not shutil.which("apt-get"):
        raise Failure(f"{why}: install it (Debian and Ubuntu, as root: apt-get install {package})")
    say(f"{why}: apt-get install {package}")
    get = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y",
           "-o", "DPkg::Lock::Timeout=600"]
    install = [*get, "--no-install-recommends", "install", package]
    # The lists of packages are old or absent on a fresh machine: fetch them only when needed.
    for command in (install, [*get, "update"], install):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if command is install and done.returncode == 0:
            return
    raise Failure(f"apt-get install {package} failed")


def as_root():
    """What to put before a command that needs root; None where nothing helps."""
    if os.getuid() == 0:
        return []
    if shutil.which("sudo"):
        if subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
            return ["sudo", "-n"]
    return None
