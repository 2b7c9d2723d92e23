"""How close a training step is to its limit, and what the other ways to do it cost.

    python benchmarks/train_speed.py --data PHOTOS --features STORE --student tiny [--set key=value ...]
        [--teacher TEACHER] [--steps 20] [--json out.json]

One process, one run, the ways taking turns batch by batch so that all meet the same machine:

    limit      the towers' forward and backward pass and the optimizer on tensors that lie on the device
    step       the trainer's own step, from the memory of decoded pixels and tokens to updated weights
    live       the same with the teacher asked in every step, as open_clip and CLIP-KD do (needs --teacher)
    published  one image decoded, resized and encoded for each caption, captions padded to 30 tokens, as DSMD's code

Prints milliseconds a step (median), captions and images a second, the ratio to the limit, what the losses, the
balancer and the queue take, what the loader takes, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning_fabric import Fabric, seed_everything
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from distilvl.data.batches import Batch
from distilvl.features import FeatureStore
from distilvl.models import load_teacher
from distilvl.pictures import decode_image
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student
from distilvl.teachers.base import Teacher
from distilvl.training.distributed import resolve_precision
from distilvl.training.materials import SharedInputs
from distilvl.training.optimizer import build_optimizer
from distilvl.training.run_folder import RunFolder
from distilvl.training.setup import build_balancer, build_objective, fill_queues
from distilvl.training.sources import PairSource, StepInputs
from distilvl.training.trainer import Trainer

WARMUP = 2
PUBLISHED_TOKENS = 30


@dataclass
class Timing:
    """Seconds of each step of one way, and how many captions and images it had."""

    seconds: list[float] = field(default_factory=list)
    captions: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Medians a step and rates."""
        step = median(self.seconds)
        return {"ms": 1000 * step, "captions_per_s": median(self.captions) / step,
                "images_per_s": median(self.images) / step}  # fmt: skip


class Ways:
    """The ways to do a step, over one trainer, so that towers, batch, precision and optimizer are the same."""

    def __init__(self, trainer: Trainer, teacher: Teacher | None) -> None:
        assert isinstance(trainer.source, PairSource)
        self.trainer, self.source, self.teacher = trainer, trainer.source, teacher
        self.bare = build_optimizer(trainer.encoder, trainer.config.optimizer)

    def limit(self, ready: StepInputs) -> None:
        """Forward, a trivial loss, backward, optimizer; the inputs are on the device."""
        z_image, z_text = self.trainer.model(ready.images, ready.texts, ready.attention_mask)
        self.trainer.fabric.backward(z_image.sum() + z_text.sum())
        self.bare.step()
        self.bare.zero_grad(set_to_none=True)

    def live(self, batch: Batch) -> None:
        """Ask the teacher for the batch's features, then the step."""
        assert self.teacher is not None
        train, device = self.source.train, self.trainer.fabric.device
        captions = [self.captions[row] for row in batch.captions]
        u_image = torch.as_tensor(self.teacher.encode_images([self.pictures[row] for row in batch.images]))
        u_text = torch.as_tensor(self.teacher.encode_texts(captions))
        inputs = replace(self.source.gather(batch), u_image=u_image.to(device), u_text=u_text.to(device))
        assert len(train.tokens) == len(self.captions)
        self.trainer.update(inputs)

    def published(self, batch: Batch) -> None:
        """Decode, resize and encode an image for every caption; pad every caption to 30 tokens."""
        trainer = self.trainer
        records = [self.source.train.dataset[int(batch.images[k])] for k in batch.image_of]
        images = [decode_image(record.image.read(), record.image.name) for record in records]
        ready = self.source.gather(batch)
        pixels = torch.from_numpy(trainer.encoder.resize(images)).to(trainer.fabric.device)
        missing = PUBLISHED_TOKENS - ready.texts.shape[1]
        padded = [torch.nn.functional.pad(x, (0, max(0, missing))) for x in (ready.texts, ready.attention_mask)]
        assert ready.u_image is not None
        owners, rows = torch.arange(len(ready.text_ids)), ready.u_image[ready.image_of]
        self.trainer.update(replace(ready, images=pixels, texts=padded[0], attention_mask=padded[1],
                                    ids=ready.text_ids, image_of=owners, u_image=rows))  # fmt: skip

    def objective(self, ready: StepInputs) -> None:
        """Losses, balancer, their backward pass down to the features, and the queue; no towers."""
        trainer = self.trainer
        assert ready.u_image is not None
        assert ready.u_text is not None
        u_image, u_text, ids = ready.u_image[ready.image_of], ready.u_text, ready.text_ids
        z_image, z_text = (x.clone().requires_grad_() for x in (u_image, u_text))
        losses = trainer.objective(z_image, z_text, u_image, u_text, ids)
        weights = trainer.balancer(losses, (z_image, z_text))
        torch.stack([weights[name] * value for name, value in losses.items()]).sum().backward()
        trainer.objective.fill(ready.u_image, ready.ids, u_text, ids)

    @property
    def captions(self) -> list[str]:
        """Of the training split."""
        if not hasattr(self, "_captions"):
            self._captions = self.source.train.dataset.captions
        return self._captions

    @property
    def pictures(self) -> Any:
        """Decoded pictures of the training split by row, as a teacher takes them."""
        return _Pictures(self.source)

    def flops(self, batch: Batch) -> dict[str, float]:
        """Forward FLOPs of student and teacher on one batch; a training step of the student has three times its."""
        ready = self.source.gather(batch)
        counts = {"student": _flops(lambda: self.trainer.encoder(ready.images, ready.texts, ready.attention_mask))}
        if self.teacher is not None:
            teacher, images = self.teacher, [self.pictures[row] for row in batch.images]
            captions = [self.captions[row] for row in batch.captions]
            counts["teacher"] = _flops(lambda: (teacher.encode_images(images), teacher.encode_texts(captions)))
        return counts


class _Pictures:
    def __init__(self, source: PairSource) -> None:
        self._source = source

    def __getitem__(self, row: int) -> Image.Image:
        record = self._source.train.dataset[int(row)]
        return decode_image(record.image.read(), record.image.name)


def _flops(work: Callable[[], object]) -> float:
    # The fused attention of some back ends is not counted, the plain one is.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def make_trainer(args: argparse.Namespace, folder: Path) -> tuple[Trainer, float]:
    """A trainer over the training split, and the seconds that decoding it took."""
    config = load_config(args.recipe, student=args.student, overrides=args.set)
    seed_everything(0, verbose=False)
    store = FeatureStore.open(Path(args.features))
    shared = SharedInputs()
    captions = shared.split(args.data, "train").captions
    encoder = DualEncoder(build_student(config.student, store.manifest.dim, captions))
    fabric = Fabric(devices=1, precision=resolve_precision(config.training.precision))
    started = time.perf_counter()
    train = shared.materials(args.data, "train", encoder, store, fabric)
    decoding = time.perf_counter() - started
    objective = build_objective(config.objective, store.manifest.dim)
    fill_queues(objective, config.objective.queues.start, train, 0)
    run = RunFolder.open(folder, config)
    source = PairSource(train, encoder, config.training, fabric.device)
    return Trainer(fabric, config, encoder, objective, build_balancer(config.balancer), source, train, run), decoding


def measure(trainer: Trainer, ways: Ways, steps: int) -> dict[str, Timing]:
    """Time every way on the same batches, in turn."""
    trainer.encoder.train()
    names = ["limit", "step", "objective", "loader", "published", *(["live"] if ways.teacher else [])]
    timings = {name: Timing() for name in names}
    epoch = 0
    batches: list[Batch] = []
    while len(batches) < steps + WARMUP:
        batches += list(ways.source.sampler.epoch(epoch))
        epoch += 1
    for k, batch in enumerate(batches[: steps + WARMUP]):
        ready = ways.source.gather(batch)
        work: dict[str, Callable[[], object]] = {
            "limit": lambda ready=ready: ways.limit(ready),  # type: ignore[misc]
            "step": lambda batch=batch: trainer.update(ways.source.gather(batch)),  # type: ignore[misc]
            "objective": lambda ready=ready: ways.objective(ready),  # type: ignore[misc]
            "loader": lambda batch=batch: ways.source.gather(batch),  # type: ignore[misc]
            "published": lambda batch=batch: ways.published(batch),  # type: ignore[misc]
            "live": lambda batch=batch: ways.live(batch),  # type: ignore[misc]
        }
        for name in names if k % 2 else reversed(names):
            seconds = timed(work[name])
            if k >= WARMUP:
                timing = timings[name]
                timing.seconds.append(seconds)
                timing.captions.append(len(batch.captions))
                timing.images.append(len(batch.captions) if name == "published" else len(batch.images))
    return timings


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call, the device's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--student", default="tiny")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--teacher")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainer, decoding = make_trainer(args, Path(folder))
        ways = Ways(trainer, load_teacher(args.teacher) if args.teacher else None)
        timings = measure(trainer, ways, args.steps)
        flops = ways.flops(next(ways.source.sampler.epoch(0)))
    report(timings, flops, decoding, trainer, args)


def report(
    timings: dict[str, Timing], flops: dict[str, float], decoding: float, trainer: Trainer, args: argparse.Namespace
) -> None:
    """Print the table, and write it where asked."""
    rows = {name: timing.row() for name, timing in timings.items()}
    limit, step = rows["limit"]["ms"], rows["step"]["ms"]
    for name in ("limit", "step", "live", "published"):
        if name in rows:
            row = rows[name]
            print(f"{name:>9}: {row['ms']:8.1f} ms a step, {row['captions_per_s']:7.1f} captions/s, "
                  f"{row['images_per_s']:7.1f} images/s, {limit / row['ms']:.3f} of the limit")  # fmt: skip
    facts = {
        "ratio_to_limit": limit / step,
        "objective_share": rows["objective"]["ms"] / step,
        "loader_share": rows["loader"]["ms"] / step,
        "captions_over_published": rows["step"]["captions_per_s"] / rows["published"]["captions_per_s"],
        "decoding_once_s": decoding,
        "epoch_s": step / 1000 * trainer.source.batches_per_epoch,
        "peak_memory_gib": _peak_memory(),
        "student_gflops_forward": flops["student"] / 1e9,
    }
    if "live" in rows:
        facts["speed_over_live"] = rows["live"]["ms"] / step
        facts["flops_over_live"] = (3 * flops["student"] + flops["teacher"]) / (3 * flops["student"])
    for name, value in facts.items():
        print(f"{name:>24}: {value:.3f}")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, **facts}, indent=2) + "\n", encoding="utf-8")


def _peak_memory() -> float:
    """GiB: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
