"""A process that has imported what commands need and forks for each, so that a block's commands start at once.

    python workbench.py SOCKET

A caller (`command.py`) sends its three standard streams and a JSON object with `command` (words; `distilvl ...` or
`python FILE ...`), `folder`, `variables` and `pid_file`, and is answered with the exit code. The child goes on as the
command itself would: the same entry point, arguments, folder, variables and streams.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any


def main(address: str) -> None:
    """Listen until standard input ends, as it does when the tests end in whatever way; then end all that still runs."""
    import scipy.stats  # noqa: F401
    import sentence_transformers  # noqa: F401

    import distilvl.cli
    import distilvl.evaluation.evaluate
    import distilvl.training.train  # noqa: F401

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{address}.new")
        door.listen()
        Path(f"{address}.new").rename(address)  # whoever finds it can call
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who answer need no burial
        while sys.stdin not in select.select([door, sys.stdin], [], [])[0]:
            caller, _ = door.accept()
            if os.fork() == 0:
                door.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(caller)
                os._exit(0)
            caller.close()
    os.killpg(0, signal.SIGKILL)


def answer(caller: socket.socket) -> None:
    """Run what the caller asks for in a child, and tell its exit code."""
    data, streams, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    while not data.endswith(b"\n"):
        data += caller.recv(1 << 20)
    asked = json.loads(data)
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        caller.close()
        os._exit(run(**asked))
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    caller.sendall(str(code).encode())


def run(command: list[str], folder: str, variables: dict[str, str], pid_file: str | None) -> int:
    """Be the command: its exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    # What Python would have read from it at its start.
    sys.path += [each for each in variables.get("PYTHONPATH", "").split(os.pathsep) if each and each not in sys.path]
    make_scenes_few()
    if pid_file:
        Path(pid_file).write_text(str(os.getpid()), encoding="utf-8")
    try:
        if command[0] == "distilvl":
            from distilvl.cli import main as distilvl

            sys.argv = [str(Path(sys.executable).with_name("distilvl")), *command[1:]]
            distilvl()
        else:
            run_python(command[1:])
    except SystemExit as end:
        return exit_code(end.code)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def make_scenes_few() -> None:
    """`--data scenes` is the same world with 200 / 30 / 30 of its pictures: what takes a minute takes a second."""
    from distilvl.data import scenes

    scenes.scenes_dataset = functools.partial(scenes.scenes_dataset, train=200, val=30, test=30)


def run_python(words: list[str]) -> None:
    """`python -m MODULE ...` or `python FILE ...`; `distilvl.train` runs one epoch, as the command does here."""
    import distilvl
    from distilvl.training.train import train

    @functools.wraps(train)
    def one_epoch(**settings: Any) -> Any:
        return train(**{**settings, "overrides": [*settings.get("overrides", ()), "training.epochs=1"]})

    distilvl.train = one_epoch
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()  # noqa: PTH109
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


def exit_code(code: object) -> int:
    """What a process that ends with `SystemExit(code)` tells its parent."""
    if code is None or isinstance(code, int):
        return code or 0
    sys.stderr.write(f"{code}\n")
    return 1


if __name__ == "__main__":
    main(sys.argv[1])
