"""From a configuration to what the loop works on: the teacher's features, the student, its batches and its losses."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric
from sentence_transformers import SentenceTransformer
from torch import Tensor

from distilvl.config import Config
from distilvl.data.crops import Views
from distilvl.data.items import Items, captions_of, images_of
from distilvl.data.left_out import LeftOut, Sources, source_name
from distilvl.data.loading import is_unpaired, load_dataset
from distilvl.data.records import PairDataset
from distilvl.data.shards import ShardSplit, is_webdataset, one_split, open_split
from distilvl.errors import DistilvlError
from distilvl.evaluation.results import few_images
from distilvl.extraction.prepare import prepare_features
from distilvl.features import FeatureStore
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.objectives import MultiscaleObjective
from distilvl.objectives.multiscale import require_pairless
from distilvl.students import DualEncoder
from distilvl.students.storage import load_basis, principal_basis
from distilvl.training.assembly import build_objective, fill_queues
from distilvl.training.distributed import rank_zero_first, require_agreement, seed_process, share_of
from distilvl.training.materials import NAME_VAL_DATA, Materials, SharedInputs
from distilvl.training.ridge import regress_heads
from distilvl.training.run_folder import RunFolder
from distilvl.training.sources import AlternatingSource, BatchSource, PairSource, UnpairedSource
from distilvl.training.stream import StreamSource
from distilvl.training.student import DEFAULT_WIDTH, fingerprint, ready_student, try_towers


@dataclass(frozen=True)
class Splits:
    """What a run learns from and what it is scored on; perhaps other data that it learns beside."""

    train: Items | ShardSplit
    val: Items
    extra: Items | ShardSplit | None = None

    @property
    def captions(self) -> Collection[str]:
        """Of all that is learnt from."""
        return self.train.captions if self.extra is None else [*self.train.captions, *self.extra.captions]

    @property
    def listing(self) -> str:
        """A hash of names and captions of all images that are held in memory; nobody looks at their pixels."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.extra):
            if part is not None and not isinstance(part, ShardSplit):
                for text in (*(name for name, _ in images_of(part)), "", *captions_of(part), ""):
                    digest.update(f"{len(text)} {text}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Setup:
    """All that a `Trainer` needs, and what is said of it afterwards.

    Attributes:
        store: the teacher's features, where there is a teacher.
        model: the student.
        encoder: the same for training.
        objective: losses and filled queues.
        train: the training split in memory, or its stream.
        extra: what is learnt beside it, likewise, if anything.
        source: batches of both.
        val: the validation split.
        basis: axes that the teacher's rows were turned to (D, D), for a student of several widths or one that goes on
            from such a student.
        fingerprints: of the data that is learnt from.
    """

    store: FeatureStore | None
    model: SentenceTransformer
    encoder: DualEncoder
    objective: MultiscaleObjective
    train: Materials | StreamSource
    extra: Materials | StreamSource | None
    source: BatchSource
    val: Materials
    basis: Tensor | None
    fingerprints: dict[str, str]

    @property
    def skipped_images(self) -> int:
        """Bad images that were left out."""
        learnt = [part for part in (self.train, self.extra) if part is not None]
        skipped = [part.skipped if isinstance(part, StreamSource) else len(part.left_out) for part in learnt]
        return sum(skipped) + len(self.val.left_out)

    def left_out(self, config: Config) -> Sources:
        """What was passed over up to now, by reason: of the data, and of what the teacher was asked about."""
        parts = {
            source_name(str(config.inputs.data), ["train"]): self.train,
            source_name(str(config.inputs.extra_data), ["train"]): self.extra,
            source_name(str(config.inputs.scored_data), ["val"]): self.val,
        }
        found = {name: _left_out_of(part) for name, part in parts.items() if part is not None}
        return found if self.store is None else {**found, f"features {self.store.path}": self.store.left_out}


def _left_out_of(part: Materials | StreamSource) -> LeftOut:
    return part.left_out if isinstance(part, StreamSource) else part.dataset.left_out | part.left_out


def open_splits(config: Config, shared: SharedInputs) -> Splits:
    """The splits that `config` names; of shards no more than their numbers of records."""
    extra = config.inputs.extra_data
    return Splits(
        _open_train(str(config.inputs.data), shared),
        shared.split(_val_data(config), "val"),
        None if extra is None else _open_train(extra, shared),
    )


def small_val(config: Config, shared: SharedInputs) -> str | None:
    """A warning where the split that chooses the best epoch is small."""
    data = shared.dataset(_val_data(config))
    if not isinstance(data, PairDataset):
        return None
    return few_images(data, "val", remedy="It chooses the best epoch; --val-data names another dataset.")


def _open_train(data: str, shared: SharedInputs) -> Items | ShardSplit:
    if is_webdataset(data):
        return open_split(data, "train", skip_bad=shared.skip_bad)
    return shared.split(data, "train")


def set_up(config: Config, splits: Splits, folder: RunFolder, shared: SharedInputs, fabric: Fabric) -> Setup:
    """Try the student, ask the teacher where its features are not stored yet, and make both splits ready.

    Raises:
        DistilvlError: anything wrong with the input; the message says what to do.
    """
    if config.inputs.features is None and config.inputs.teacher is not None:
        # The student proper needs the teacher's width.
        try_towers(config, fabric)
    store = rank_zero_first(
        fabric, lambda: _feature_store(config, splits, folder, shared.skip_bad, may_ask=fabric.is_global_zero)
    )
    width = _shared_width(config, store)
    encoder = ready_student(config, width, splits.captions, fabric)

    ready = partial(_training_items, config, encoder=encoder, store=store, shared=shared, fabric=fabric)
    train = ready(str(config.inputs.data), splits.train)
    extra = None if splits.extra is None else ready(str(config.inputs.extra_data), splits.extra)
    val = shared.materials(_val_data(config), "val", encoder, store, fabric, scored=True)
    fingerprints = {"data": fingerprint(train), "extra_data": "" if extra is None else fingerprint(extra)}
    require_agreement(fabric, **fingerprints)
    basis = _basis(config, train, store)
    if basis is not None:
        train, val = train.turned(basis), val.turned(basis)
        extra = None if extra is None else extra.turned(basis)

    objective = build_objective(config.objective, width)
    fill_queues(objective, config.objective.queues.start, train, config.training.seed)
    source = _source(config, splits.train, train, encoder, fabric)
    if splits.extra is not None and extra is not None:
        beside = _source(config, splits.extra, extra, encoder, fabric)
        source = AlternatingSource(source, beside, config.training.extra_share)
    if config.training.head_init == "ridge" and not folder.last.is_file():
        regress_heads(encoder, source, fabric)
    seed_process(fabric, config.training.seed)
    return Setup(store, encoder.student, encoder, objective, train, extra, source, val, basis, fingerprints)


def _val_data(config: Config) -> str:
    return one_split(str(config.inputs.scored_data), "val")


def _training_items(
    config: Config,
    data: str,
    train: Items | ShardSplit,
    encoder: DualEncoder,
    store: FeatureStore | None,
    shared: SharedInputs,
    fabric: Fabric,
) -> Materials | StreamSource:
    """The training split of `data` in memory, or its stream."""
    views = _views(config, store)
    if isinstance(train, ShardSplit):
        return StreamSource(train, encoder, config.training, store, fabric, views)
    return shared.materials(data, "train", encoder, store, fabric, views, reduced_jpeg=config.training.reduced_jpeg)


def _source(
    config: Config, split: Items | ShardSplit, train: Materials | StreamSource, encoder: DualEncoder, fabric: Fabric
) -> BatchSource:
    if isinstance(train, StreamSource):
        return train
    kind = PairSource if isinstance(split, PairDataset) else UnpairedSource
    return kind(train, encoder, config.training, fabric.device, share_of(fabric))


def check_inputs(config: Config) -> None:
    """That `config` names data, a teacher where its losses need one, and pairs to be scored on.

    Raises:
        DistilvlError: it does not.
    """
    inputs = config.inputs
    if inputs.data is None:
        raise DistilvlError("no data is named.", "Pass --data with a folder, a file or the name scenes.")
    if is_unpaired(inputs.data) or is_unpaired(inputs.extra_data or ""):
        require_pairless(config.objective.losses)
    if is_unpaired(str(inputs.scored_data)):
        raise DistilvlError(f"{inputs.scored_data} has no pairs, so it cannot be scored on.", NAME_VAL_DATA)
    if inputs.teacher is not None and inputs.features is not None:
        raise DistilvlError("both a teacher and a feature store are named.", "Pass --teacher or --features.")
    if config.objective.needs_teacher and inputs.teacher is None and inputs.features is None:
        losses = ", ".join(config.objective.losses)
        raise DistilvlError(
            f"the losses {losses} need a teacher, and none is named.",
            "Pass --teacher or --features, or --recipe contrastive to train without one.",
        )


def _feature_store(
    config: Config, splits: Splits, folder: RunFolder, skip_bad: bool, *, may_ask: bool
) -> FeatureStore | None:
    """The store named by the config, or one made now, in one process, by asking the teacher about both splits."""
    if config.inputs.features is not None:
        return FeatureStore.open(Path(config.inputs.features))
    if config.inputs.teacher is None:
        return None
    out = folder.path / "features"
    if not may_ask:
        return FeatureStore.open(out if (out / MANIFEST_NAME).is_file() else config.inputs.teacher)
    views = Views(count=config.training.crops) if config.training.crops > 1 else None
    if splits.extra is not None:
        extra = _records(splits.extra, str(config.inputs.extra_data), skip_bad)
        prepare_features(
            config.inputs.teacher, extra, out, skip_bad=skip_bad, views=views, source=str(config.inputs.extra_data)
        )
    learnt, scored = str(config.inputs.data), str(config.inputs.scored_data)
    train, val = _records(splits.train, learnt, skip_bad), splits.val
    together = train is splits.train and config.inputs.val_data is None and views is None
    if together and isinstance(train, PairDataset) and isinstance(val, PairDataset):
        left_out = train.left_out | val.left_out
        both = PairDataset(train.name.rsplit("/", 1)[0], train.records + val.records, left_out)
        return prepare_features(config.inputs.teacher, both, out, skip_bad=skip_bad, source=learnt).store
    # Ids of two datasets may be the same, and scoring needs no views, so each is asked about by itself.
    source = source_name(learnt, ["train"])
    prepare_features(config.inputs.teacher, train, out, skip_bad=skip_bad, views=views, source=source)
    source = source_name(scored, ["val"])
    return prepare_features(config.inputs.teacher, val, out, skip_bad=skip_bad, source=source).store


def _records(split: Items | ShardSplit, data: str, skip_bad: bool) -> Items:
    """Its items; those of shards are in memory while the teacher is asked: `distilvl features` in parts avoids that."""
    if isinstance(split, ShardSplit):
        return load_dataset(one_split(data, "train"), skip_bad=skip_bad)
    return split


def _views(config: Config, store: FeatureStore | None) -> Views | None:
    """Which views of the training images the student sees: those that the teacher saw."""
    if config.training.crops == 1:
        return None
    if store is None:
        raise DistilvlError(
            f"training.crops is {config.training.crops}, and there are no features of views.",
            "Name a teacher, or a store made with `distilvl features --views`.",
        )
    return store.require_views(config.training.crops)


def _basis(config: Config, train: Materials | StreamSource, store: FeatureStore | None) -> Tensor | None:
    """Other axes for the teacher's rows: those that the student to go on with learnt, or the principal ones."""
    kept = None if config.student.folder is None else load_basis(Path(config.student.folder))
    # With a teacher of another width nothing compares the student's rows with the teacher's.
    if kept is not None and (store is None or store.manifest.dim == len(kept)):
        return kept
    if not config.objective.dims or (known := train.teacher) is None:
        return None
    return principal_basis(known.images.blocks(), known.texts.blocks())


def _shared_width(config: Config, store: FeatureStore | None) -> int:
    """D: the config's, or the teacher's; losses that compare with the teacher need both to be the same."""
    width = config.student.dim or (store.manifest.dim if store else DEFAULT_WIDTH)
    if store is not None and config.objective.needs_teacher and width != store.manifest.dim:
        raise DistilvlError(
            f"student.dim is {width}, the features of {store.manifest.teacher} have {store.manifest.dim}.",
            "Leave student.dim unset, or use a teacher of that width.",
        )
    return width
