"""From a configuration to a `Trainer`: teacher features, the student, its batches and its losses."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from distilvl.config import Config
from distilvl.data.crops import Items
from distilvl.data.left_out import LeftOut, Sources, source_name
from distilvl.data.records import PairDataset
from distilvl.data.shards import ShardSplit
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.objectives import LOSSES, NO_IMAGE, MultiscaleObjective
from distilvl.objectives.balancers import BALANCERS, Balancer
from distilvl.objectives.config import BalancerConfig, ObjectiveConfig
from distilvl.objectives.loss import LearnedTemperature
from distilvl.objectives.queue import QueueStart
from distilvl.students import DualEncoder
from distilvl.students.storage import load_basis, principal_basis
from distilvl.training.distributed import rank_zero_first, require_agreement, seed_process, share_of
from distilvl.training.inputs import HELD_OUT, LEARNT, Splits, prepare_store, val_data
from distilvl.training.materials import Materials, SharedInputs
from distilvl.training.optimizer import initialise_heads
from distilvl.training.run_folder import RunFolder
from distilvl.training.sources import AlternatingSource, BatchSource, PairSource, UnpairedSource
from distilvl.training.stream import StreamSource
from distilvl.training.student import DEFAULT_DIM, ready_student, try_towers
from distilvl.training.teacher_features import crops_of
from distilvl.training.trainer import Trainer


def build_objective(config: ObjectiveConfig, dim: int) -> MultiscaleObjective:
    """The losses of `config`, for embeddings of dimension `dim`."""
    losses = [LOSSES[name].build(config.settings(name)) for name in config.losses]
    for loss in losses:
        if config.learn_temperatures and loss.learns_temperature:
            fixed: Any = loss.temperature
            loss.temperature = LearnedTemperature(fixed)
    return MultiscaleObjective(dim, losses, queue_size=config.queues.queue, dims=config.dims)


def build_balancer(config: BalancerConfig) -> Balancer:
    """The balancer of `config`."""
    kind = BALANCERS[config.name]
    return kind(**{name: getattr(config, name) for name in kind.settings.model_fields})


def fill_queues(objective: MultiscaleObjective, start: QueueStart, train: Materials | StreamSource, seed: int) -> None:
    """What both queues hold before the first step, where there is a teacher.

    `stored`: randomly drawn teacher features, so that CD has all its negatives from the start. `empty`: nothing; CD is
    0 at the first step. `random`: random unit vectors that belong to no image, as in the published code.
    """
    size, dim = objective.image_queue.features.shape
    if isinstance(train, StreamSource):
        sample = None if start == "empty" else train.sample(size)
        known, random = sample is not None, np.random.default_rng(seed)
    else:
        sample, known = None, train.teacher is not None
        random = np.random.default_rng((seed, len(train.pixels)))
    if start == "empty" or not known:
        return
    if start == "random":
        rows = torch.from_numpy(random.standard_normal((2, size, dim), dtype=np.float32))
        nobody = torch.full((size,), NO_IMAGE)
        objective.fill(F.normalize(rows[0], dim=1), nobody, F.normalize(rows[1], dim=1), nobody)
    elif sample is not None:
        objective.fill(sample[0].images.all(), sample[1], sample[0].texts.all(), sample[1])
    elif isinstance(train, Materials) and train.teacher is not None:
        images, texts = (random.permutation(len(side))[:size] for side in (train.teacher.images, train.teacher.texts))
        image_ids, text_ids = train.pictures[images // train.crops], train.text_pictures[texts]
        teacher = train.teacher.images[images], train.teacher.texts[texts]
        objective.fill(teacher[0], torch.from_numpy(image_ids), teacher[1], torch.from_numpy(text_ids))


@dataclass(frozen=True)
class Setup:
    """A run that is ready for `trainer.fit`, and what is said of it afterwards.

    `train`, and `extra` beside it, are in memory or streams; `basis` (D, D) are axes that the teacher features were
    turned to, for a Matryoshka student.
    """

    trainer: Trainer
    store: FeatureStore | None
    train: Materials | StreamSource
    extra: Materials | StreamSource | None
    val: Materials
    basis: Tensor | None

    @property
    def skipped_images(self) -> int:
        """Bad images that were left out."""
        learnt = [part for part in (self.train, self.extra) if part is not None]
        skipped = [part.skipped if isinstance(part, StreamSource) else len(part.left_out) for part in learnt]
        held = self.trainer.held
        return sum(skipped) + len(self.val.left_out) + (0 if held is None else len(held.left_out))

    def left_out(self, config: Config) -> Sources:
        """What was left out up to now, by reason: of the data, and in the extraction of features."""
        inputs, found = config.inputs, {}
        parts = (inputs.data, "train", self.train), (inputs.extra_data, "train", self.extra)
        for data, split, part in (*parts, (inputs.scored_data, "val", self.val)):
            if part is not None:
                before = LeftOut() if isinstance(part, StreamSource) else part.dataset.left_out
                also = self.trainer.held if part is self.train else None
                found[source_name(str(data), [split])] = before | part.left_out | (also.left_out if also else LeftOut())
        return found if self.store is None else {**found, f"features {self.store.path}": self.store.left_out}


def open_store(
    config: Config, splits: Splits, folder: RunFolder, shared: SharedInputs, fabric: Fabric
) -> FeatureStore | None:
    """The teacher's features, if there is one, extracted where they are not; the student's towers are tried first."""
    if config.inputs.features is None and config.inputs.teacher is not None:
        # The student proper needs the teacher's dimension.
        try_towers(config, fabric)
    out = folder.path / "features"
    crops = config.training.crops if config.training.crop_features == "own" else 1
    how: dict[str, Any] = {"first": fabric.is_global_zero, "crops": crops}
    return rank_zero_first(fabric, lambda: prepare_store(config.inputs, splits, out, shared, **how))


def set_up(
    config: Config, splits: Splits, folder: RunFolder, store: FeatureStore | None, shared: SharedInputs, fabric: Fabric,
    cut_at: int | None = None,
) -> Setup:  # fmt: skip
    """Make the student, splits, batches and losses ready; `cut_at` is as of `ready_student`."""
    dim, crops = _shared_dim(config, store), crops_of(config.training, store)
    encoder, held_out = ready_student(config, dim, splits.captions, fabric, cut_at), config.training.held_out

    def ready(data: str | None, split: Items | ShardSplit) -> Materials | StreamSource:
        if isinstance(split, ShardSplit):
            if config.training.mirror:
                problem = f"training.mirror is for images that are read once, and {split.name} is read as a stream."
                raise DistilvlError(problem, "Leave it out.")
            if crops is not None and config.training.crop_features == "whole":
                problem = f"training.crop_features=whole is for lists of images, and {split.name} is read as a stream."
                raise DistilvlError(problem, "Extract features of crops with `distilvl features --views`.")
            return StreamSource(split, encoder, config.training, store, fabric, crops)
        how: dict[str, Any] = {"reduced_jpeg": config.training.reduced_jpeg, "mirror": config.training.mirror}
        how["scratch"] = folder.path
        how["whole_features"] = config.training.crop_features == "whole"
        name = "train" if data != config.inputs.data or not held_out else f"{LEARNT} {held_out}"
        return shared.materials(str(data), name, encoder, store, fabric, crops, **how)

    train = ready(config.inputs.data, splits.train)
    extra = None if splits.extra is None else ready(config.inputs.extra_data, splits.extra)
    val = shared.materials(val_data(config), "val", encoder, store, fabric, scored=True)
    held = None
    if held_out:
        name = f"{HELD_OUT} {held_out}"
        held = shared.materials(str(config.inputs.data), name, encoder, store, fabric, scored=True)
    fingerprints = {"data": train.fingerprint(), "extra_data": "" if extra is None else extra.fingerprint()}
    learnt = [part for part in (train, extra) if isinstance(part, Materials)]
    fingerprints["bytes_of_images"] = hashlib.sha256(b"".join(key for part in learnt for key in part.keys)).hexdigest()
    require_agreement(fabric, **fingerprints)
    basis = _basis(config, train, store)
    if basis is not None:
        train, val = train.turned(basis), val.turned(basis)
        held = None if held is None else held.turned(basis)
        extra = None if extra is None else extra.turned(basis)
    objective = build_objective(config.objective, dim)
    fill_queues(objective, config.objective.queues.start, train, config.training.seed)
    source = _source(config, train, encoder, fabric)
    if extra is not None:
        source = AlternatingSource(source, _source(config, extra, encoder, fabric), config.training.extra_share)
    if config.training.head_init == "ridge" and not folder.last.is_file():
        initialise_heads(encoder, source, fabric)
    seed_process(fabric, config.training.seed)
    balancer = build_balancer(config.balancer)
    trainer = Trainer(fabric, config, encoder, objective, balancer, source, val, folder, fingerprints, held)
    return Setup(trainer, store, train, extra, val, basis)


def _source(config: Config, train: Materials | StreamSource, encoder: DualEncoder, fabric: Fabric) -> BatchSource:
    if isinstance(train, StreamSource):
        return train
    kind = PairSource if isinstance(train.dataset, PairDataset) else UnpairedSource
    return kind(train, encoder, config.training, fabric.device, share_of(fabric))


def _basis(config: Config, train: Materials | StreamSource, store: FeatureStore | None) -> Tensor | None:
    """Other axes for the teacher features: those that the student to go on with learnt, or the principal ones."""
    kept = None if config.student.folder is None else load_basis(Path(config.student.folder))
    # With a teacher of another dimension nothing compares the student's embeddings with the teacher's.
    if kept is not None and (store is None or store.manifest.dim == len(kept)):
        return kept
    if not config.objective.dims or (known := train.teacher) is None:
        return None
    return principal_basis(known.images.blocks(), known.texts.blocks())


def _shared_dim(config: Config, store: FeatureStore | None) -> int:
    """D: the config's, or the teacher's; losses that compare with the teacher need both to be the same."""
    dim = config.student.dim or (store.manifest.dim if store else DEFAULT_DIM)
    if store is not None and config.objective.needs_teacher and dim != store.manifest.dim:
        problem = f"student.dim is {dim}, the features of {store.manifest.teacher} have {store.manifest.dim}."
        raise DistilvlError(problem, "Leave student.dim unset, or use a teacher of that dimension.")
    return dim
