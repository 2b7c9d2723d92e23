"""Runs `distilvl` with a fault in it: the n-th operation on a folder fails, or the process is killed there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
LONGEST = 600  # characters of the one line that a user sees


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int | None  # the exit code; less than 0: a signal; none: the time was over
    count: int | None  # operations below the folder; none where it was killed
    said: str  # stdout and stderr

    @property
    def is_killed(self) -> bool:
        """Whether a fault killed it."""
        return self.code is not None and self.code < 0

    def fault(self, *, may_fail: bool = True) -> str | None:
        """What is wrong with how it ended, if anything; with `may_fail` an error in one line is right, too.

        LanceDB's Rust writes a line of its own where it panics at a damaged file; what counts is that ours follows.
        """
        if self.code is None:
            return "it hangs"
        if "Traceback (most recent" in self.said or (self.code == 0 and "panicked at" in self.said):
            return "a traceback"
        if self.code not in (0, 2):
            return f"exit code {self.code}"
        if self.code == 2 and not may_fail:
            return "it is refused"
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        if self.code == 2 and len(errors) != 1:
            return f"{len(errors)} lines of error"
        return next((f"an error of {len(line)} characters" for line in errors if len(line) > LONGEST), None)


def compiler() -> list[str] | None:
    """A C compiler: the system's, or that of the package `ziglang`; none where there is neither."""
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is not None:
        return [found]
    return None if find_spec("ziglang") is None else [sys.executable, "-m", "ziglang", "cc"]


class Runner:
    """A `fork_server` with the shim; a context manager."""

    def __init__(self, folder: Path, seconds: float = 60) -> None:
        self._log, self._shim, self._seconds = folder / "log.txt", folder / "shim.so", seconds
        command = compiler()
        assert command is not None, "a C compiler is needed"
        source = HERE / "shim.c"
        subprocess.run([*command, "-shared", "-fPIC", "-O1", "-o", self._shim, source, "-ldl"], check=True)

    def __enter__(self) -> Runner:
        environment = {**os.environ, "LD_PRELOAD": str(self._shim), "HF_HUB_OFFLINE": "1", "GLIBC_TUNABLES": "x",
                       "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
        self._server = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)

    def run(self, argv: Sequence[str], root: Path, n: int = 0, errno: int = 0) -> Outcome:
        """`distilvl ARGV`, whose n-th operation below `root` fails with `errno`; 0 kills it. n = 0: none fails."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {"argv": list(argv), "root": f"{root}/", "n": n, "errno": errno, "seconds": self._seconds,
                   "log": str(self._log)}  # fmt: skip
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        told = json.loads(self._server.stdout.readline())
        return Outcome(told["code"], told["count"], self._log.read_text(encoding="utf-8", errors="replace"))
