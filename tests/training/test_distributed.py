from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.training.distributed import Share, require_same_number, start_fabric

HERE = Path(__file__).parent


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def in_two_processes(*command: str) -> list[subprocess.CompletedProcess[str]]:
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


@pytest.mark.slow
def test_two_processes_have_the_losses_gradients_weights_and_queues_of_one() -> None:
    for done in in_two_processes(str(HERE / "joined_batch_worker.py")):
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == "the same\n"


@given(st.integers(0, 200), st.integers(1, 20))
def test_shares_are_the_whole_batch_in_order_and_of_equal_size(total: int, processes: int) -> None:
    rows = [list(range(total))[Share(rank, processes).rows(total)] for rank in range(processes)]
    assert [row for part in rows for row in part] == list(range(total))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_another_number_of_processes_does_not_continue_a_run() -> None:
    fabric = cast(Any, SimpleNamespace(world_size=4))
    require_same_number(4, fabric)
    with pytest.raises(DistilvlError, match=r"begun in 1 process and cannot go on in 4 processes.*another --out"):
        require_same_number(1, fabric)


def test_the_launcher_says_how_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(DistilvlError, match="--devices is 3, and the launcher started 2"):
        start_fabric("cpu", "32-true", devices=3)


@pytest.mark.parametrize("accelerator", ["gpu0", "mps", "tpu"])
def test_a_device_that_is_not_there_is_an_error_of_one_process_too(accelerator: str) -> None:
    if accelerator == "mps" and torch.backends.mps.is_available():
        accelerator = "cuda"
    with pytest.raises(DistilvlError, match=rf"cannot train on {accelerator}: .*--device auto or cpu"):
        start_fabric(accelerator, "32-true")


def test_one_process_needs_no_launcher() -> None:
    fabric = start_fabric("cpu", "32-true")
    assert (fabric.world_size, fabric.is_global_zero) == (1, True)
