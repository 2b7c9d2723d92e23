"""How close a training step is to the limit: the towers' own forward, backward and optimizer step.

    python benchmarks/step_overhead.py --data PHOTOS --features STORE [--student tiny] [--set key=value ...]

In one process, for the same towers, batch and precision, alternating so that both meet the same machine:
(a) the limit: the same batches as tensors ready on the device, forward, a trivial loss, backward, AdamW;
(b) the trainer's step: batch assembly, forward, all losses, balancer, clipping, AdamW, queue.
Prints milliseconds a step (median), pairs/s, and the ratio (a)/(b): 1 is the limit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from lightning_fabric import Fabric, seed_everything

from distilvl.features import FeatureStore
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student
from distilvl.training.assembly import build_balancer, build_objective, fill_queues
from distilvl.training.materials import SharedInputs
from distilvl.training.optimizer import build_optimizer
from distilvl.training.precision import resolve_precision
from distilvl.training.run_folder import RunFolder
from distilvl.training.trainer import Trainer


def make_trainer(args: argparse.Namespace, folder: Path) -> Trainer:
    """A trainer over the first images of the training split."""
    config = load_config("default", student=args.student, overrides=args.set)
    seed_everything(0, verbose=False)
    store = FeatureStore.open(Path(args.features))
    shared = SharedInputs()
    captions = shared.split(args.data, "train").captions
    encoder = DualEncoder(build_student(config.student, store.manifest.dim, captions))
    train = shared.materials(args.data, "train", encoder, store)
    objective = build_objective(config.objective, store.manifest.dim)
    fill_queues(objective, config.objective.cd.start, train, 0)
    fabric = Fabric(devices=1, precision=resolve_precision(config.training.precision))
    run = RunFolder.open(folder, config)
    return Trainer(fabric, config, encoder, objective, build_balancer(config.balancer), train, train, run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--student", default="tiny")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, Path(folder))
        bare = build_optimizer(trainer.encoder, trainer.config.optimizer)
        trainer.encoder.train()
        batches = list(trainer.sampler.epoch(0)) * (1 + args.steps // trainer.sampler.batches_per_epoch)
        times: dict[str, list[float]] = {"limit": [], "step": []}
        for k, batch in enumerate(batches[: args.steps + 2]):
            tensors = trainer._gather(batch)

            def limit(ready: tuple[torch.Tensor | None, ...] = tensors) -> None:
                z_image, z_text = trainer.model(*ready[:3])
                trainer.fabric.backward((z_image * z_text).sum())
                bare.step()
                bare.zero_grad(set_to_none=True)

            work_of: dict[str, Callable[[], object]] = {"limit": limit, "step": partial(trainer._step, batch)}
            order = list(work_of.items())
            for name, work in order if k % 2 else reversed(order):
                elapsed = timed(work)
                if k >= 2:  # the first two warm up
                    times[name].append(elapsed)
        size = trainer.config.training.batch_size
        for name, values in times.items():
            print(f"{name:>5}: {1000 * median(values):8.1f} ms a step, {size / median(values):7.1f} pairs/s")
        print(f"ratio: {median(times['limit']) / median(times['step']):.3f} of the limit, {args.steps} steps each")


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call, the device's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
