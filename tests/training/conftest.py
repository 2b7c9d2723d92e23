"""What tests of stopped runs, and of several processes, share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import count

import pytest

from distilvl.training.sources import StepInputs
from distilvl.training.trainer import Trainer

StopBefore = Callable[[pytest.MonkeyPatch, int], None]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_in_two_processes(*command: str) -> list[subprocess.CompletedProcess[str]]:
    """Run a Python script twice, with what `torchrun --nproc-per-node 2` tells its processes."""
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **told, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [one.communicate(timeout=500) for one in started]
    finally:
        for one in started:
            one.kill()
    pairs = zip(started, outputs, strict=True)
    return [subprocess.CompletedProcess(command, one.returncode, *output) for one, output in pairs]


@pytest.fixture(scope="session")
def stop_before() -> StopBefore:
    """Has a run stop, as by Ctrl-C, before that step (from 1)."""

    def patch(patched: pytest.MonkeyPatch, step: int) -> None:
        update, calls = Trainer.update, count(1)

        def stop(self: Trainer, inputs: StepInputs) -> object:
            if next(calls) == step:
                raise KeyboardInterrupt
            return update(self, inputs)

        patched.setattr(Trainer, "update", stop)

    return patch


@pytest.fixture(scope="session")
def in_two_processes() -> Callable[..., list[subprocess.CompletedProcess[str]]]:
    """Runs a Python script in two processes; see there."""
    return run_in_two_processes
