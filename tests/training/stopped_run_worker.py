"""One of two processes, started by test_cluster.py: a whole run, and one that is stopped in mid epoch and continued."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

import distilvl
from distilvl.training.distributed import leave
from distilvl.training.sources import StepInputs
from distilvl.training.trainer import Trainer

data, teacher, student, folder = sys.argv[1:]
OVERRIDES = ["training.batch_size=7", "training.precision=fp32", "training.checkpoint_every=2", "training.epochs=3",
             "training.captions_per_image=2", "objective.cd.queue=20", "training.log_every=1",
             "training.head_init=ridge"]  # fmt: skip


def run(name: str) -> None:
    distilvl.train(
        data=data, teacher=teacher, student=student, out=Path(folder, name), overrides=OVERRIDES, device="cpu"
    )


if __name__ == "__main__":
    run("whole")
    update, calls = Trainer.update, 0

    def stop_at_seven(self: Trainer, inputs: StepInputs) -> dict[str, Any]:
        global calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return update(self, inputs)

    Trainer.update = stop_at_seven  # type: ignore[method-assign]
    try:
        run("parts")
    except KeyboardInterrupt:
        Trainer.update = update  # type: ignore[method-assign]
    if torch.distributed.get_rank() == 0:
        shutil.copytree(Path(folder, "parts"), Path(folder, "stopped"))
    torch.distributed.barrier()
    torch.manual_seed(99)
    run("parts")
    leave()
