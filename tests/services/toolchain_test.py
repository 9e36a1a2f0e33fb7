"""What a build needs is asked for, and nothing more: a demo needs no Python, and any C++ compiler will do."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Toolchain(unittest.TestCase):
    def run_with(self, programs, *wanted):
        """Runs the check where only `programs` are to be found; its exit code and what it said."""
        with tempfile.TemporaryDirectory() as folder:
            for program in programs:
                stub = Path(folder, program)
                stub.write_text("#!/bin/sh\n")
                stub.chmod(0o755)
            environment = {name: text for name, text in os.environ.items() if name != "CXX"}
            environment["PATH"] = folder
            command = [shutil.which("bash"), str(ROOT / ".ci/toolchain"), *wanted]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            return done.returncode, done.stderr

    def test_any_compiler_will_do_and_python_is_needed_for_the_services_only(self):
        for compiler in ["g++", "clang++", "c++"]:
            self.assertEqual(self.run_with(["cargo", "make", compiler]), (0, ""))

    def test_what_is_missing_is_named(self):
        code, said = self.run_with(["cargo", "make"], "python3")
        self.assertEqual(code, 1)
        self.assertIn("missing g++ python3;", said)


if __name__ == "__main__":
    unittest.main()
