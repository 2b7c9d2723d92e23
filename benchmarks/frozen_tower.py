"""What it saves that frozen layers of an image tower run once: in reading images, and in a training step.

    python benchmarks/frozen_tower.py --data PHOTOS --features STORE --student lite [--set key=value ...]
        [--layers 2] [--images 640] [--steps 12] [--json out.json]

One process, one run, the ways taking turns so that all meet the same machine. Reading, images a second:

    float32    the tower as it is
    autocast   in bfloat16, operator by operator
    traced     one graph, as `distilvl fit` and stored outputs are computed (`students/frozen.py`): in bfloat16 where
               the CPU has it, else in float32, and so are the steps below

Training, milliseconds of the trainer's own step with the same batches, losses and optimizer:

    whole      pixels through all of the tower, all of it learning
    stored     stored outputs through the top layers, which learn
    head       stored outputs of the whole tower, only the heads learning

`GLIBC_TUNABLES=x` in the environment keeps this process's memory allocation as the C library has it; without it, it is
started again with what the `distilvl` command sets.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.__main__ import _start_again
from distilvl.config import Config
from distilvl.data import PairDataset, load_dataset
from distilvl.features import FeatureStore
from distilvl.pictures import decode_image
from distilvl.recipes import load_config
from distilvl.students import DualEncoder
from distilvl.students.frozen import ON_CPU, traced_store
from distilvl.training.distributed import resolve_precision
from distilvl.training.materials import SharedInputs
from distilvl.training.run_folder import RunFolder
from distilvl.training.setup import build_balancer, build_objective, fill_queues
from distilvl.training.sources import PairSource
from distilvl.training.student import ready_student
from distilvl.training.trainer import Trainer

WARMUP = 2


def reading(encoder: DualEncoder, pixels: Tensor) -> dict[str, float]:
    """Images a second of each way, and how far off float32 the outputs are, in their standard deviations."""
    encoder.eval()
    plain = encoder.store_images
    ways: dict[str, Callable[[Tensor], Tensor]] = {"float32": plain, "autocast": _autocast(plain)}
    traced = traced_store(
        encoder, torch.bfloat16 if resolve_precision("auto", "cpu") == "bf16-mixed" else torch.float32
    )
    if traced is not None:
        ways["traced"] = traced
    parts, seconds = torch.split(pixels, ON_CPU), {name: list[float]() for name in ways}
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for number, part in enumerate(parts):
            for name, way in ways.items():
                started = time.perf_counter()
                rows = way(part).float()
                if number >= WARMUP:
                    seconds[name].append(time.perf_counter() - started)
                    found.setdefault(name, []).append(rows)
    exact = torch.cat(found["float32"])
    spread = exact.std(dim=0).clamp(min=1e-6)
    figures = {f"{name}_images_per_s": ON_CPU / median(took) for name, took in seconds.items()}
    off = {name: ((torch.cat(rows) - exact) / spread).abs().mean().item() for name, rows in found.items()}
    return figures | {f"{name}_off": value for name, value in off.items() if name != "float32"}


def _autocast(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def cast(part: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return way(part)

    return cast


def trainer_of(config: Config, data: PairDataset, store: FeatureStore, folder: Path) -> Trainer:
    """A trainer over `data`, whose image tower learns as `config` says."""
    fabric, shared = Fabric(accelerator="cpu", devices=1, precision=resolve_precision("auto", "cpu")), SharedInputs()
    named = shared.named(None, store, data=data)
    encoder = ready_student(config, store.manifest.dim, data.captions, fabric)
    train = shared.materials(str(named["data"]), "train", encoder, store, fabric)
    objective = build_objective(config.objective, store.manifest.dim)
    fill_queues(objective, config.objective.queues.start, train, 0)
    source = PairSource(train, encoder, config.training, fabric.device)
    balancer, run = build_balancer(config.balancer), RunFolder.open(folder, config)
    return Trainer(fabric, config, encoder, objective, balancer, source, train, run)


def steps(trainers: dict[str, Trainer], count: int) -> dict[str, float]:
    """Median milliseconds of a step of each, from rows in memory to updated weights."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    epochs = {name: trainer.source.epoch(0) for name, trainer in trainers.items()}
    for number in range(count + WARMUP):
        for name, trainer in trainers.items():
            trainer.encoder.train()
            started = time.perf_counter()
            trainer.update(next(epochs[name]))
            if number >= WARMUP:
                seconds[name].append(time.perf_counter() - started)
    return {f"{name}_ms": 1000 * median(took) for name, took in seconds.items()}


def main() -> None:
    """Measure and print."""
    _start_again()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--student", default="lite")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    whole = load_dataset(args.data).split("train")
    data, store = whole.only(whole.records[: args.images]), FeatureStore.open(Path(args.features))
    learning: dict[str, Any] = {
        "whole": [], "stored": [f"student.image.trainable_layers={args.layers}"], "head": ["student.image.frozen=true"],
    }  # fmt: skip
    trainers = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, more in learning.items():
            config = load_config("default", student=args.student, overrides=[*args.set, *more])
            trainers[name] = trainer_of(config, data, store, Path(folder) / name)
        pictures = [decode_image(record.image.read(), record.image.name) for record in data.records[:320]]
        pixels = torch.from_numpy(trainers["head"].encoder.resize(pictures))
        found = reading(trainers["head"].encoder, pixels) | steps(trainers, args.steps)
    found["whole_over_stored"] = found["whole_ms"] / found["stored_ms"]
    for name, value in found.items():
        print(f"{name:>24}: {value:.3f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
