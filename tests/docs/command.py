"""`distilvl`, `python` and `pip` as the blocks call them: the real ones, by way of the workbench, with these changes.

- `distilvl train` runs one epoch: the end of its line says so.
- `distilvl reproduce` of the paper's tables plans them (`--dry-run`); one's own runs with one epoch of one seed.
- `distilvl export` may lose any RSUM: of 15 pictures one rank is 7 points.
- `scenes` has few pictures, and `distilvl.train` in Python runs one epoch, see `workbench.py`.
- A server listens on a free port instead of 8000, in the background; it is there when the command returns, and ends
  (with exit code 0, as is promised) when the next one starts or the page is at its end.
- `pip install 'distilvl[EXTRA]'` installs nothing; the extra has to exist.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PID, CODE, LOG = Path(".server-pid"), Path(".server-code"), Path(".server-log")
SERVERS = (["distilvl", "serve"], ["python", "-m", "http.server"])


def main(words: list[str]) -> int:
    """Run the command; its exit code."""
    if words[0] == "pip":
        return pip(words[1:])
    if words[:2] == ["distilvl", "train"]:
        words = [*words, "--set", "training.epochs=1"]
    if words[:2] == ["distilvl", "reproduce"]:
        own = any(word.endswith(".yaml") for word in words)
        words = [*words, *(["--epochs", "1", "--seeds", "1"] if own else ["--dry-run"])]
    if words[:2] == ["distilvl", "export"]:
        words = [*words, "--max-drop", "600"]
    if any(words[: len(server)] == server for server in SERVERS):
        return stop_server() or serve(words)
    if words[0] == "python" and words[1] == "-c":
        return subprocess.run([sys.executable, *words[1:]]).returncode
    return ask(words, (0, 1, 2), None)


def ask(words: list[str], streams: tuple[int, int, int], pid_file: str | None) -> int:
    """Have the workbench run it."""
    request = {"command": words, "folder": str(Path.cwd()), "variables": dict(os.environ), "pid_file": pid_file}
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(os.environ["WORKBENCH"])
        socket.send_fds(caller, [json.dumps(request).encode() + b"\n"], streams)
        caller.shutdown(socket.SHUT_WR)
        answer = caller.recv(64)
    return int(answer or 1)


def serve(words: list[str]) -> int:
    """Start a server and wait until it answers; 1 when it ends before that."""
    port = os.environ["DOCS_PORT"]
    words = [*words, "--port", port] if words[0] == "distilvl" else [*words, port]
    if os.fork() == 0:
        # The block's own streams are left, or whoever reads them would wait for the server's end.
        log, nothing = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, os.O_RDONLY)
        for number, stream in enumerate((nothing, log, log)):
            os.dup2(stream, number)
        CODE.write_text(str(ask(words, (0, 1, 2), str(PID.resolve()))))
        os._exit(0)
    while not CODE.exists():
        try:
            socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return 0
    sys.stderr.write(LOG.read_text())
    forget_server()
    return 1


def stop_server() -> int:
    """End the server that runs in this folder, if there is one; its exit code."""
    if not PID.exists():
        return 0
    os.kill(int(PID.read_text()), signal.SIGTERM)
    while not (CODE.exists() and CODE.read_text()):
        time.sleep(0.05)
    code = forget_server()
    # http.server has no promise to keep: the signal ends it.
    return 0 if code == -signal.SIGTERM else code


def forget_server() -> int:
    """Take the ended server's files away; its exit code."""
    code = int(CODE.read_text())
    CODE.unlink()
    PID.unlink(missing_ok=True)
    return code


def pip(words: list[str]) -> int:
    """Whether `pip install 'distilvl[...]'` names extras that there are; anything else is refused."""
    from importlib.metadata import metadata

    name, _, extras = words[-1].rstrip("]").partition("[")
    known = set(metadata("distilvl").get_all("Provides-Extra") or ())
    if words[:-1] == ["install"] and name == "distilvl" and set(extras.split(",")) <= known:
        return 0
    sys.stderr.write(f"pip {words}: only 'install distilvl[EXTRA]' is expected, with extras of {sorted(known)}\n")
    return 1


if __name__ == "__main__":
    sys.exit(stop_server() if sys.argv[1:] == ["stop-server"] else main(sys.argv[1:]))
