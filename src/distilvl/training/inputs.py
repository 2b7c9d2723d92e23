"""What a run is made from: data, teacher and features, named or given as objects; checked, and opened by split."""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from distilvl.config import Config, InputsConfig
from distilvl.data import load_any
from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import source_name
from distilvl.data.loading import is_unpaired, load_dataset
from distilvl.data.records import PairDataset, UnpairedDataset
from distilvl.data.shards import ShardSplit, is_webdataset, one_split, open_split
from distilvl.errors import DistilvlError, NoCaptionsError
from distilvl.evaluation.intervals import few_images
from distilvl.extraction.extract import extract_features
from distilvl.features import FeatureStore
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.io.hashes import text_key
from distilvl.objectives.multiscale import require_pairless
from distilvl.teachers.base import Teacher
from distilvl.teachers.checks import checked

_logger = logging.getLogger("distilvl")

NAME_VAL_DATA = "Name a dataset of pairs with a split val: --val-data."
GIVEN = "object:"
"""How the name of an object begins in a run's `config.yaml`; to continue the run, the program gives it again."""

LEARNT, HELD_OUT = "train without", "held out of train:"
"""Names of the parts of a split train of which some images choose the best epoch; their number follows."""


class Inputs:
    """Datasets and teachers by name, each read once; objects that a program gave have names, too."""

    def __init__(self, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self._datasets: dict[str, Items] = {}
        self._splits: dict[tuple[str, str], Items] = {}
        self._teachers: dict[str, Teacher] = {}

    def named(self, teacher: object, features: object, **data: object) -> dict[str, str | None]:
        """The section `inputs` for a run's config, of what `train` or `fit` was given; objects are kept under it."""
        if not isinstance(features, str | Path | FeatureStore | None):
            remedy = "Give the path of a FeatureStore, or one."
            raise DistilvlError(f"features is of the type {type(features).__name__}.", remedy)
        teacher_name, store = self.name_teacher(teacher)
        if features is not None and store is not None:
            raise DistilvlError("both a teacher and a feature store are named.", "Pass --teacher or --features.")
        stored = features.path if isinstance(features, FeatureStore) else features
        names = {argument: self.name_data(one, argument) for argument, one in data.items()}
        return {**names, "teacher": teacher_name, "features": store if stored is None else str(stored)}

    def name_data(self, data: object, argument: str) -> str | None:
        """The name for a run's config of what `train` was given as `argument`; a dataset is kept under it."""
        if data is None or isinstance(data, str | Path):
            return None if data is None else str(data)
        if not isinstance(data, PairDataset | UnpairedDataset):
            remedy = "Give a name or specification (text), a path, a PairDataset or an UnpairedDataset."
            raise DistilvlError(f"{argument} is of the type {type(data).__name__}.", remedy)
        name = f"{GIVEN}{data.name}"
        if self._datasets.setdefault(name, data) is not data:
            raise DistilvlError(f"two different datasets are named {data.name!r}.", "Give each a name of its own.")
        return name

    def without_captions(self, data: object, texts: str | Path | None) -> object:
        """`data`, or the name of the unpaired data that stand for it: a folder of images with the lines of `texts`.

        Without `texts`, a folder in which no image has a caption goes with `data.phrases`.
        """
        folder = Path(data) if isinstance(data, str | Path) and Path(data).is_dir() else None
        if texts is not None:
            if folder is None:
                problem = f"texts are for a folder of images, and data is {'not named' if data is None else data}."
                raise DistilvlError(problem, "Pass --data with the folder, or name both: --data unpaired:DIR,FILE.")
            return f"unpaired:{folder},{texts}"
        if folder is not None:
            try:
                self.dataset(str(data))
            except NoCaptionsError:
                _logger.info(
                    "%s has no captions: the texts are sentences that the package makes (unpaired:%s)", folder, folder
                )
                return f"unpaired:{folder}"
        return data

    def name_teacher(self, teacher: object) -> tuple[str | None, str | None]:
        """The names for a run's config, as `teacher` and as `features`, of what `train` was given as a teacher."""
        if teacher is None or isinstance(teacher, str | Path):
            return (None if teacher is None else str(teacher)), None
        if isinstance(teacher, FeatureStore):
            return None, str(teacher.path)
        if not (hasattr(teacher, "encode_images") and hasattr(teacher, "encode_texts")):
            raise DistilvlError(
                f"teacher is of the type {type(teacher).__name__}.",
                "Give a specification (text), a path, a FeatureStore, or an object with encode_images, encode_texts.",
            )
        found = checked(teacher)
        self._teachers[f"{GIVEN}{found.name}"] = found
        return f"{GIVEN}{found.name}", None

    def dataset(self, source: str) -> Items:
        """The dataset that `source` names."""
        if source not in self._datasets:
            _require_named(source, "data")
            self._datasets[source] = load_any(source, skip_bad=self.skip_bad)
        return self._datasets[source]

    def is_unpaired(self, source: str) -> bool:
        """Whether it has images and texts without pairs; reads nothing."""
        return isinstance(self._datasets.get(source), UnpairedDataset) or is_unpaired(source)

    def split(self, source: str, name: str) -> Items:
        """One split of it, not empty; data without pairs is its own `train`, and has no other."""
        if (source, name) not in self._splits:
            data = self.dataset(source)
            if not isinstance(data, PairDataset) and name != "train":
                raise DistilvlError(f"{data.name} has no pairs, so it cannot be scored on.", NAME_VAL_DATA)
            self._splits[source, name] = data.split(name) if isinstance(data, PairDataset) else data
        return self._splits[source, name]

    def hold_out(self, source: str, count: int) -> tuple[PairDataset, PairDataset]:
        """The split train of `source` in two, of which the second, `count` images, chooses the best epoch.

        Which ones is a matter of their ids. `split` knows both by `LEARNT` and `HELD_OUT` with the number.
        `DistilvlError` for data without pairs, or too few.
        """
        train = self.split(source, "train")
        if not isinstance(train, PairDataset):
            problem = f"{train.name} has no pairs, so none of it can be scored on."
            raise DistilvlError(problem, "Leave training.held_out at 0: the split val of --val-data chooses.")
        ranks = sorted(range(len(train)), key=lambda row: text_key(train[row].image_id))
        chosen = set(ranks[: min(count, len(train) // 10)])
        if not chosen:
            problem = f"{train.name} has {len(train)} images, of which none can be held out."
            raise DistilvlError(problem, "Leave training.held_out at 0: the split val chooses.")
        learnt, held = (
            train.only([record for row, record in enumerate(train) if (row in chosen) == inside])
            for inside in (False, True)
        )
        self._splits |= {(source, f"{LEARNT} {count}"): learnt, (source, f"{HELD_OUT} {count}"): held}
        return learnt, held

    def check(self, config: Config) -> None:
        """That `config` names data, a teacher where its losses need one, and pairs to be scored on."""
        inputs, losses = config.inputs, config.objective.losses
        if self.is_unpaired(self.check_named(inputs)) or self.is_unpaired(inputs.extra_data or ""):
            require_pairless(losses)
        if self.is_unpaired(str(inputs.scored_data)):
            raise DistilvlError(f"{inputs.scored_data} has no pairs, so it cannot be scored on.", NAME_VAL_DATA)
        if config.objective.needs_teacher and inputs.teacher is None and inputs.features is None:
            remedy = "Pass --teacher or --features, or --recipe contrastive to train without one."
            raise DistilvlError(f"the losses {', '.join(losses)} need a teacher, and none is named.", remedy)

    def check_named(self, inputs: InputsConfig) -> str:
        """That a run names data, which are returned, and no more than one teacher."""
        if inputs.data is None:
            raise DistilvlError("no data is named.", "Pass --data with a folder, a file or the name scenes.")
        if inputs.teacher is not None and inputs.features is not None:
            raise DistilvlError("both a teacher and a feature store are named.", "Pass --teacher or --features.")
        if inputs.teacher is not None and inputs.teacher not in self._teachers:
            _require_named(inputs.teacher, "teacher")
        return inputs.data

    def extract(self, teacher: str, items: Items, out: Path, crops: Crops | None, source: str) -> FeatureStore:
        """A store with the teacher's features of `items`, in `out` unless `teacher` names a finished store."""
        given = self._teachers.get(teacher, teacher)
        return extract_features(given, items, out, skip_bad=self.skip_bad, crops=crops, source=source).store


def _require_named(source: str, argument: str) -> None:
    if source.startswith(GIVEN):
        problem = f"the {argument} {source.removeprefix(GIVEN)!r} of this run is an object that a program gave."
        raise DistilvlError(problem, f"Give it again: distilvl.train({argument}=...).")


@dataclass(frozen=True)
class Splits:
    """What a run learns from and what it is scored on; perhaps other data that it learns beside."""

    train: Items | ShardSplit
    val: Items | None  # none where a run is not scored
    extra: Items | ShardSplit | None = None
    held: PairDataset | None = None  # of the split train: chooses the best epoch

    @property
    def captions(self) -> Collection[str]:
        """Of all that is learnt from."""
        return self.train.captions if self.extra is None else [*self.train.captions, *self.extra.captions]

    @property
    def listing(self) -> str:
        """A hash of names and captions of all images that are held in memory; their pixels are not read."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.extra, self.held):
            if part is not None and not isinstance(part, ShardSplit):
                for text in (*(entry.image_id for entry in part), "", *part.captions, ""):
                    digest.update(f"{len(text)} {text}".encode())
        return digest.hexdigest()


def val_data(config: Config) -> str:
    """The dataset whose split `val` scores the run."""
    return one_split(str(config.inputs.scored_data), "val")


def open_splits(config: Config, inputs: Inputs) -> Splits:
    """The splits that `config` names; of shards no more than their numbers of records."""

    def train_of(data: str) -> Items | ShardSplit:
        if is_webdataset(data):
            return open_split(data, "train", skip_bad=inputs.skip_bad)
        return inputs.split(data, "train")

    data, val, extra = str(config.inputs.data), inputs.split(val_data(config), "val"), config.inputs.extra_data
    others = None if extra is None else train_of(extra)
    if not config.training.held_out:
        return Splits(train_of(data), val, others)
    if is_webdataset(data):
        problem = f"training.held_out is for images that are read once, and {data} is read as a stream."
        raise DistilvlError(problem, "Leave it at 0: the split val chooses.")
    learnt, held = inputs.hold_out(data, config.training.held_out)
    return Splits(learnt, val, others, held)


def small_val(config: Config, inputs: Inputs) -> str | None:
    """A warning where the split val is small and chooses the best epoch."""
    if config.training.held_out:
        return None
    data, remedy = inputs.dataset(val_data(config)), "It chooses the best epoch; --val-data names another dataset."
    return few_images(data, "val", remedy=remedy) if isinstance(data, PairDataset) else None


def prepare_store(
    named: InputsConfig, splits: Splits, out: Path, inputs: Inputs, *, first: bool, crops: int = 1
) -> FeatureStore | None:
    """The store that a run names, or the one in `out`, filled by the teacher in the first of several processes."""
    if named.features is not None:
        return FeatureStore.open(Path(named.features))
    if named.teacher is None:
        return None
    if not first:
        return FeatureStore.open(out if (out / MANIFEST_NAME).is_file() else named.teacher)
    drawn = Crops(count=crops) if crops > 1 else None
    learnt, scored = str(named.data), str(named.scored_data)

    def items(split: Items | ShardSplit, data: str) -> Items:
        """Those of shards are in memory during extraction: `distilvl features` in parts avoids that."""
        if isinstance(split, ShardSplit):
            return load_dataset(one_split(data, "train"), skip_bad=inputs.skip_bad)
        return split

    if splits.extra is not None:
        extra = str(named.extra_data)
        inputs.extract(named.teacher, items(splits.extra, extra), out, drawn, extra)
    train, val = items(splits.train, learnt), splits.val
    if splits.held is not None and isinstance(train, PairDataset):
        train = replace(train, records=train.records + splits.held.records)
    together = not isinstance(splits.train, ShardSplit) and named.val_data is None and drawn is None
    if together and isinstance(train, PairDataset) and isinstance(val, PairDataset):
        left_out = train.left_out | val.left_out
        both = PairDataset(train.name.rsplit("/", 1)[0], train.records + val.records, left_out)
        return inputs.extract(named.teacher, both, out, None, learnt)
    # Ids of two datasets may be the same, and scoring needs no crops, so features of each are extracted by itself.
    store = inputs.extract(named.teacher, train, out, drawn, source_name(learnt, ["train"]))
    return store if val is None else inputs.extract(named.teacher, val, out, None, source_name(scored, ["val"]))
