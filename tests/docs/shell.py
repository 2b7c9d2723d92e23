"""What a shell block would call: bash itself reads it, with every command replaced by one that notes its arguments."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

# No command is found, so bash calls the handler with the words of each. `which` says what it was asked, since
# `fabric run $(which distilvl) train` is a call of distilvl.
_NOTE_ALL = """
command_not_found_handle() { printf '%s\\0' "$@" >&3; printf '\\1\\0' >&3; }
which() { echo "$1"; }
set -a
"""


def commands_in(script: str, folder: Path, variables: Mapping[str, str]) -> list[list[str]]:
    """The words of every command that `script` calls, loops, variables and braces expanded; nothing is run.

    Args:
        script: the text of the block.
        folder: an empty folder, for what the script redirects into files.
        variables: of the environment.

    Raises:
        AssertionError: bash cannot read the script.
    """
    noted = folder / "noted"
    with noted.open("wb") as file:
        done = subprocess.run(
            ["/bin/bash", "-c", f"exec 3>&{file.fileno()}\n{_NOTE_ALL}{script}"],
            cwd=folder, env={**variables, "PATH": os.devnull}, pass_fds=[file.fileno()], capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls: list[list[str]] = [[]]
    for word in noted.read_text(encoding="utf-8").split("\0")[:-1]:
        if word == "\1":
            calls.append([])
        else:
            calls[-1].append(word)
    return [call for call in calls if call]
