"""A process that has imported everything, and runs `distilvl` in a fork of itself: a tenth of the time of a new one.

Started with LD_PRELOAD of `shim.c`. Reads one JSON object a line on stdin and answers with one on stdout:

    {"argv": [...], "root": "/...", "n": 3, "errno": 28, "seconds": 60, "log": "/..."}
    {"code": 2, "count": 17, "seconds": 0.8}

`code` is the exit code, less than 0 for a signal, and none where the time was over; `count` how many operations on
files below `root` there were; none where the process was killed. What it wrote to stdout and stderr is in `log`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any


def _import_all() -> None:
    import importlib

    for name in ("onnx", "onnxruntime", "pyarrow.parquet", "sentence_transformers", "torch", "matplotlib.pyplot"):
        importlib.import_module(name)
    for name in ("cli", "experiments.reproduce", "export.export", "extraction", "reports",
                 "training.train", "training.fit", "evaluation", "features", "data", "demo"):  # fmt: skip
        importlib.import_module(f"distilvl.{name}")


def _child(request: dict[str, Any], shim: Any, back: int) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["distilvl", *request["argv"]]
    code: Any = 0
    shim.fault_arm(request["root"].encode(), request["n"], request["errno"])
    try:
        from distilvl.cli import main

        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    os.write(back, str(shim.fault_count()).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(request: dict[str, Any], shim: Any) -> dict[str, Any]:
    read, write = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setpgid(0, 0)
        _child(request, shim, write)
    os.close(write)
    code: int | None = None
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() - started > request["seconds"]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    told = os.read(read, 100).decode()
    os.close(read)
    return {"code": code, "count": int(told) if told else None, "seconds": time.monotonic() - started}


def main() -> None:
    """Serve requests until stdin ends."""
    os.environ["OMP_NUM_THREADS"] = "1"
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not reach the answers
    shim: Any = ctypes.CDLL(None)
    _import_all()
    out.write("ready\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps(_run(json.loads(line), shim)) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
