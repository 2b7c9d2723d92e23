"""How large the baselines' losses are, and how much their weights matter: the two measured tables of docs/baselines.md.

    python scripts/baseline_weights.py sizes weights --data PHOTOS --features STORE --student tiny

Trains the student's two heads alone, on its towers' outputs, which are computed once: a system takes seconds. Heads
start anew from each seed, with the student's own initialisation; batches hold distinct images. The queue of `crd` and
`cd` is drawn from the store once and stays, since the teacher's rows do not age. A quick look, not a run of `train`.

    sizes    value and gradient of each loss, with fresh heads and after training with `infonce` alone
    weights  RSUM on val of systems such as `infonce=1,crd=0.8`; `--systems` picks others than those in the document
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import chain, count, islice
from statistics import fmean

import torch
from lightning_fabric import Fabric
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.config import CosineSchedule
from distilvl.data.batches import PairSampler
from distilvl.data.records import PairDataset
from distilvl.evaluation.score import score
from distilvl.features import FeatureStore
from distilvl.io.markdown import markdown_table
from distilvl.objectives import LOSSES, MultiscaleObjective
from distilvl.recipes import load_config
from distilvl.students import DualEncoder
from distilvl.students.build import HEAD_GAIN, build_student
from distilvl.students.storage import route
from distilvl.training.materials import SharedInputs
from distilvl.training.optimizer import rate_factor
from distilvl.training.setup import build_objective, fill_queues
from distilvl.training.student import Embeddings
from distilvl.training.trainer import encode_split

BESIDE = {"kd": (0.3, 1, 3), "fsp": (1, 5, 25), "dcd": (1, 3), "crd": (0.25, 0.8, 2.5), "openclip": (0.3, 1, 3)}
CLIP_KD = "infonce=1,clipkd_relation=1,clipkd_interactive=1,clipkd_feature="
SYSTEMS = [
    *("infonce=1", "infonce=1,cd=1", "cd=1", "dcd=1", "infonce=1,clipkd_feature=4"),
    *(f"infonce=1,{name}={weight}" for name, weights in BESIDE.items() for weight in weights),
    *(f"{CLIP_KD}{weight}" for weight in (1, 4, 16)),
    *(f"infonce=1,rkd_distance={weight},rkd_angle={2 * weight}" for weight in (1, 25, 100)),
]
BATCH, LR, WEIGHT_DECAY, CLIP_NORM = 64, 2e-3, 1e-4, 1.0
SIZE_BATCHES, MEASURED = 8, 1000  # the seed of their batches is none that trains
SCHEDULE = CosineSchedule(kind="cosine", warmup=0.04)


class FirstImages(SharedInputs):
    """Inputs whose training split ends after its first `images` images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def split(self, source: str, name: str) -> PairDataset:
        whole = super().split(source, name)
        return PairDataset(whole.name, whole.records[: self.images]) if name == "train" else whole


class Bench:
    """The student's heads on frozen towers, with everything that a loss is computed from."""

    def __init__(self, args: argparse.Namespace) -> None:
        config = load_config("contrastive", student=args.student, overrides=args.set)
        store, shared = FeatureStore.open(args.features), FirstImages(args.images)
        self.settings, self.width = args.set, store.manifest.dim
        torch.manual_seed(0)  # for towers that are not pretrained
        student = build_student(config.student, self.width, shared.split(args.data, "train").captions)
        encoder = DualEncoder(student)
        self.train, self.val = (shared.materials(args.data, split, encoder, store) for split in ("train", "val"))
        self.heads = encoder.heads()
        for modality in ("image", "text"):
            route(student, modality)[-1] = nn.Identity()
        towers = DualEncoder(SentenceTransformer(modules=[student[0]], device="cpu"))
        fabric = Fabric(accelerator="cpu", devices=1)
        # What the frozen towers put out, (n, width) for images and (m, width) for captions.
        self.train_rows, self.val_rows = (encode_split(fabric, towers, split) for split in (self.train, self.val))

    def start(self, seed: int) -> None:
        """Fresh heads."""
        torch.manual_seed(seed)
        for weight, bias in (self.heads[:2], self.heads[2:]):
            nn.init.xavier_normal_(weight, gain=HEAD_GAIN)
            nn.init.zeros_(bias)

    def objective(self, losses: list[str]) -> MultiscaleObjective:
        """The losses of these names, their queues filled from the store."""
        chosen = [f"objective.losses=[{','.join(losses)}]", "balancer={name: static}"]
        config = load_config("contrastive", shared_overrides=self.settings, overrides=chosen).objective
        objective = build_objective(config, self.width)
        fill_queues(objective, config.queues.start, self.train, seed=0)
        return objective

    def project(self, images: Embeddings, texts: Embeddings) -> tuple[Tensor, Tensor]:
        """z^v and z^t of towers' outputs: unit rows."""
        heads = (self.heads[:2], self.heads[2:])
        rows = (F.linear(torch.from_numpy(x), *head) for x, head in zip((images, texts), heads, strict=True))
        z_image, z_text = (F.normalize(z, dim=1) for z in rows)
        return z_image, z_text

    def losses(self, objective: MultiscaleObjective, seed: int) -> Iterator[dict[str, Tensor]]:
        """The losses of one batch after another, each computed with the heads as they are when it is asked for."""
        (images, texts), teacher = self.train_rows, self.train.teacher
        assert teacher is not None  # there is a store
        sampler = PairSampler([len(record.captions) for record in self.train.dataset], BATCH, seed)
        for batch in chain.from_iterable(map(sampler.epoch, count())):
            z = self.project(images[batch.images], texts[batch.captions])
            u = teacher.images[batch.images].float(), teacher.texts[batch.captions].float()
            yield objective(*z, *u, torch.from_numpy(batch.images))

    def fit(self, weights: Mapping[str, float], seed: int, steps: int) -> float:
        """Train fresh heads with the weighted sum of the named losses; their RSUM on val, 0 to 600."""
        self.start(seed)
        optimizer = torch.optim.AdamW(self.heads, lr=LR, weight_decay=WEIGHT_DECAY)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, SCHEDULE))
        for losses in islice(self.losses(self.objective(list(weights)), seed), steps):
            optimizer.zero_grad()
            sum(weights[name] * loss for name, loss in losses.items()).backward()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(self.heads, CLIP_NORM)
            optimizer.step()
            rates.step()
        with torch.no_grad():
            z_image, z_text = self.project(*self.val_rows)
        return score(z_image.numpy(), z_text.numpy(), self.val.caption_image).rsum

    def pulls(self, names: list[str]) -> dict[str, tuple[float, float]]:
        """Value of each loss and the norm of its gradient over the heads' weights, means over some batches."""
        objective, sums = self.objective(names), dict.fromkeys(names, (0.0, 0.0))
        for losses in islice(self.losses(objective, seed=MEASURED), SIZE_BATCHES):
            for name, loss in losses.items():
                gradients = torch.autograd.grad(loss, self.heads, retain_graph=True)
                norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
                sums[name] = sums[name][0] + loss.item() / SIZE_BATCHES, sums[name][1] + norm.item() / SIZE_BATCHES
        return sums


def print_sizes(bench: Bench, steps: int) -> None:
    names = ["infonce", *(name for name, loss in LOSSES.shipped.items() if ".baselines." in loss.__module__)]
    bench.start(0)
    fresh = bench.pulls(names)
    bench.fit({"infonce": 1.0}, seed=0, steps=steps)
    trained = bench.pulls(names)
    rows = []
    for name in names:
        numbers = [*fresh[name], *(pulls["infonce"][1] / pulls[name][1] for pulls in (fresh, trained))]
        rows.append([f"`{name}`", *(f"{number:#.3g}".rstrip(".") for number in numbers)])
    header = ["loss", "value, start", "gradient, start", "infonce's gradient / own", f"after {steps} steps"]
    print(markdown_table(header, rows) + "\n", flush=True)


def print_weights(bench: Bench, systems: list[dict[str, float]], seeds: int, steps: int) -> None:
    header = ["losses and weights", "RSUM", *(f"seed {seed}" for seed in range(seeds))]
    print(markdown_table(header, []))
    for weights in systems:
        values = [bench.fit(weights, seed, steps) for seed in range(seeds)]
        row = [", ".join(f"{name} {weight:g}" for name, weight in weights.items())]
        row += [f"{value:.1f}" for value in (fmean(values), *values)]
        print(markdown_table(header, [row]).splitlines()[-1], flush=True)


def system(text: str) -> dict[str, float]:
    """`infonce=1,kd=0.3` as a mapping."""
    weights = {name: float(weight) for name, _, weight in (term.partition("=") for term in text.split(","))}
    if not set(weights) <= set(LOSSES.names()):
        raise argparse.ArgumentTypeError(f"{text!r} names a loss that is none of {', '.join(LOSSES.names())}")
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=("sizes", "weights"))
    parser.add_argument("--data", required=True, help="a data set with splits train and val")
    parser.add_argument("--features", required=True, help="the teacher's feature store of that data")
    parser.add_argument("--student", help="preset, YAML file or folder; see `distilvl train`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `distilvl train`")
    parser.add_argument("--images", type=int, default=3000, help="training images, the first so many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help=f"of {BATCH} pairs")
    default = [system(text) for text in SYSTEMS]
    parser.add_argument("--systems", nargs="+", type=system, default=default, metavar="LOSS=WEIGHT,...")
    args = parser.parse_args()
    bench = Bench(args)
    if "sizes" in args.tables:
        print_sizes(bench, args.steps)
    if "weights" in args.tables:
        print_weights(bench, args.systems, args.seeds, args.steps)


if __name__ == "__main__":
    main()
