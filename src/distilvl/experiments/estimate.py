"""How long a table will take: from runs that are finished, or from a few steps of the student on made-up input."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch
from lightning_fabric import Fabric

from distilvl.config import Config
from distilvl.experiments.cells import Job
from distilvl.features import FeatureStore
from distilvl.students import DualEncoder, build_student
from distilvl.training.materials import SharedInputs
from distilvl.training.precision import resolve_precision

_STEPS = 3


def seconds_a_run(jobs: Sequence[Job], accelerator: str) -> float:
    """Seconds that one run takes: the median of finished ones, or timed forward and backward passes."""
    finished = [job.read_score().seconds for job in jobs if job.done]
    return median(finished) if finished else _timed(jobs[0].config, accelerator)


def _timed(config: Config, accelerator: str) -> float:
    train = SharedInputs().split(str(config.inputs.data), "train")
    batch = config.training.batch_size
    captions = train.captions
    width = FeatureStore.open(str(config.inputs.features)).manifest.dim
    fabric = Fabric(
        accelerator=accelerator, devices=1, precision=resolve_precision(config.training.precision, accelerator)
    )
    encoder = DualEncoder(build_student(config.student, width, captions))
    size = encoder.image_size
    model = fabric.setup_module(encoder)
    input_ids, mask = encoder.pad(encoder.tokenize(captions[:batch]))
    pixels = torch.zeros((len(input_ids), 3, *size), dtype=torch.uint8, device=fabric.device)
    times = []
    for _ in range(_STEPS + 1):
        started = time.perf_counter()
        z_image, z_text = model(pixels, input_ids.to(fabric.device), mask.to(fabric.device))
        fabric.backward((z_image * z_text).sum())
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:]) * (len(train) // batch) * config.training.epochs
