"""`extract_features`: run a teacher once over every item of a dataset that its store does not hold yet."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import NOT_DECODED, LeftOut, note_left_out, source_name
from distilvl.data.loading import load_any
from distilvl.data.records import ALL, PairDataset, UnpairedDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction.encode import Extracted, caption_trial, fill_captions, fill_images
from distilvl.extraction.importing import import_arrays, is_array_folder, load_arrays
from distilvl.extraction.ray_engine import Cluster, extract_with_ray
from distilvl.extraction.tables import is_import, load_import
from distilvl.extraction.work import Work
from distilvl.features.manifest import MANIFEST_NAME, Manifest
from distilvl.features.store import FeatureStore
from distilvl.io.progress import progress
from distilvl.models.loading import is_stored, load_teacher
from distilvl.pictures import decode_image
from distilvl.teachers.base import PiecewiseTeacher, Teacher
from distilvl.teachers.checks import checked

_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class ExtractReport:
    """What was done."""

    extracted_images: int  # images, crops included, that the teacher encoded now; 0 when all were stored
    extracted_texts: int  # captions that it encoded now
    skipped: list[str]  # names of the bad images that were left out
    store: FeatureStore  # which now holds all other items
    left_out: LeftOut = field(default_factory=LeftOut)  # these by reason, and what the reader of the data left out

    def __repr__(self) -> str:
        asked = f"extracted_images={self.extracted_images}, extracted_texts={self.extracted_texts}"
        return f"ExtractReport({self.store!r}, {asked}, left_out={len(self.left_out)})"


def extract_features(
    teacher: str | Path | Teacher,
    data: str | Path | Items,
    out: str | Path,
    *,
    splits: str | Sequence[str] | None = None,
    crops: int | Crops | None = None,
    device: str | None = None,
    skip_bad: bool = False,
    shard_size: int | None = None,
    cluster: Cluster | None = None,
    source: str | None = None,
) -> ExtractReport:
    """Fill the store at `out` with the teacher's embeddings of all images and captions of `data`.

    Each distinct image (by content) and each distinct caption is encoded once. In order of first appearance they are
    cut into blocks of `shard_size`; a block becomes one shard. Several processes, on one machine or on several with a
    common disk, may do this at once: each block is done by one of them. What is stored is never encoded again; however
    many processes worked and were killed, the same bytes are there in the end. Hard negatives are left away.

    Args:
        teacher: anything that `load_teacher` takes, or an object with the methods of `Teacher`; of one behind an API
            (`PiecewiseTeacher`) nothing that arrived before a failure is paid for twice. Or embeddings to import: a
            folder of arrays, `parquet:...`, `clip-retrieval:...` or `hf-dataset:...`. Or a finished store, or
            `mean:A,B` or `concat:A,B` of several, which must hold all of `data`; `out` stays untouched.
        data: anything that `load_any` takes, or a dataset, paired or not.
        out: the store's folder, created if need be.
        splits: only these; all records if not given.
        crops: also encode random crops of each image: how many, the whole image included, or how they are drawn. A
            finished store must hold them.
        device: where a teacher that is named runs, such as `cuda:1`, if its kind takes `?device=`.
        skip_bad: leave out what cannot be read or decoded, or is refused by the teacher, instead of raising.
        shard_size: items a block, the same for all processes; 512, and 4,096 of more than a million, if not given.
        cluster: run a teacher that is named on a Ray cluster, instead of in this process.
        source: what the store's `left-out.json` calls the data; as it was named, if not given.

    Raises:
        BadImageError: an image that cannot be read or decoded, unless `skip_bad`.
        DistilvlError: data or a teacher that cannot be loaded; a store of another teacher; a teacher that returns
            something unfit; a finished store that lacks an item; arrays that lack an id; a full disk.
    """
    dataset, known_as = _dataset(data, splits, skip_bad)
    source, crops = source or known_as or dataset.name, _crops(crops)
    if isinstance(teacher, str | Path):
        spec, path = str(teacher), Path(teacher)
        if is_stored(spec):
            return _finished(FeatureStore.open(spec), dataset, crops, skip_bad)
        imported = is_import(spec) or is_array_folder(path)
        if crops is not None and (imported or cluster is not None):
            remedy = "Leave --views away, or give a teacher and no --engine ray."
            raise DistilvlError("only a teacher that runs in this process encodes crops.", remedy)
        if imported:
            arrays = load_import(spec) if is_import(spec) else load_arrays(path)
            store, unreadable = import_arrays(arrays, spec, dataset, out, skip_bad=skip_bad)
            return _report(store, dataset, unreadable, source)
        spec = spec if device is None else f"{spec}{'&' if '?' in spec else '?'}device={device}"
        if cluster is not None:
            work = Work.of(dataset, skip_bad=skip_bad, shard_size=shard_size)
            store, images, texts = extract_with_ray(spec, work, out, cluster, skip_bad=skip_bad)
            return _report(store, dataset, work.names_of(images.bad), source, images.count, texts.count)
        teacher = load_teacher(spec)
    elif device is not None or cluster is not None:
        raise DistilvlError("a teacher that is open already runs where it is.", "Name it, to run it elsewhere.")
    teacher = checked(teacher)
    work = Work.of(dataset, skip_bad=skip_bad, shard_size=shard_size, crops=crops)
    store = FeatureStore.create(out, Manifest.of_teacher(teacher))
    if crops is not None:
        store.add_crops(crops)
    images, texts = _extract_here(teacher, work, store, skip_bad)
    return _report(store, dataset, work.names_of(images.bad), source, images.count, texts.count)


def estimate_features(
    teacher: str | Path,
    data: str | Path | Items,
    out: str | Path,
    *,
    splits: str | Sequence[str] | None = None,
    crops: int | Crops | None = None,
    skip_bad: bool = False,
) -> str:
    """What `extract_features` would send to an API: requests, time and money, in one line. Sends and writes nothing.

    `DistilvlError` where `teacher` is not behind an API; others cost nothing.
    """
    dataset, _ = _dataset(data, splits, skip_bad)
    loaded = load_teacher(teacher)
    if not isinstance(loaded, PiecewiseTeacher):
        raise DistilvlError(f"the teacher {loaded.name!r} costs nothing but time.", "Run without --estimate.")
    work = Work.of(dataset, skip_bad=skip_bad, crops=_crops(crops))
    return _estimate(loaded, work, FeatureStore.open(out) if (Path(out) / MANIFEST_NAME).is_file() else None)


def _estimate(teacher: PiecewiseTeacher, work: Work, store: FeatureStore | None) -> str:
    """What all that `store` lacks (all of `work`, when there is no store yet) will take."""
    captions = list(work.captions.values())
    if store is None:
        return teacher.estimate(len(work.images), captions)
    texts = [captions[i] for i in store.missing("text", list(work.captions))]
    return teacher.estimate(len(store.missing("image", list(work.images))), texts)


def _dataset(data: str | Path | Items, splits: str | Sequence[str] | None, skip_bad: bool) -> tuple[Items, str]:
    """The items, and what a file calls them; nothing for those that come as a dataset."""
    names = list(dict.fromkeys([splits] if isinstance(splits, str) else splits or ()))
    if isinstance(data, PairDataset | UnpairedDataset):
        dataset, known_as = data, ""
    else:
        dataset, known_as = load_any(data, skip_bad=skip_bad), source_name(str(data), names)
    if not names:
        return dataset, known_as
    if not isinstance(dataset, PairDataset):
        raise DistilvlError(f"{dataset.name} has no splits.", "Leave --split away.")
    parts = [dataset.split(name) for name in names]
    if ALL in names:
        return dataset.split(ALL), known_as
    return dataset.only([record for part in parts for record in part]), known_as


def _crops(crops: int | Crops | None) -> Crops | None:
    if isinstance(crops, int):
        return Crops(count=crops) if crops != 1 else None
    return crops


def _extract_here(teacher: Teacher, work: Work, store: FeatureStore, skip_bad: bool) -> tuple[Extracted, Extracted]:
    """Of images and of captions: what this process did to make `store` hold all of `work`."""
    if isinstance(teacher, PiecewiseTeacher):
        _logger.info("%s", _estimate(teacher, work, store))
    images, texts, tried = Extracted(), Extracted(), 0
    if lacking := len(store.missing("image", list(work.images))):
        sources = {key: found[0] for key, found in work.images.items()}
        first = caption_trial(teacher, store, work.caption_blocks, work.captions)
        with first as trial, progress("teacher: images", lacking) as ticker:
            images = fill_images(
                teacher, store, work.image_blocks, sources, ticker, skip_bad=skip_bad, encoded=trial.go_on
            )
        tried = trial.count
    if lacking := len(store.missing("text", list(work.captions))):
        with progress("teacher: captions", lacking) as ticker:
            texts = fill_captions(teacher, store, work.caption_blocks, work.captions, ticker, tried=tried > 0)
    return images, Extracted(tried + texts.count)


def _finished(store: FeatureStore, dataset: Items, crops: Crops | None, skip_bad: bool) -> ExtractReport:
    """Report on a store that nobody adds to; a missing item is an error, unless it is a bad image to skip."""
    if crops is not None:
        store.require_crops(crops.count).joined(crops, f"the store {store.path}")
    work = Work.of(dataset, skip_bad=skip_bad)
    bad: dict[bytes, str] = {}
    lacking = [key for block in work.image_blocks for key in block.missing(store)]
    for key in list(lacking):
        source = work.images[key][0]
        try:
            decode_image(source.read(), source.name)
        except BadImageError as error:
            if not skip_bad:
                raise
            bad[key] = error.reason or NOT_DECODED
            lacking.remove(key)
        else:
            break  # the first good one is enough for the error below
    store.require("image", lacking, [work.images[key][0].name for key in lacking])
    store.require("text", list(work.captions), list(work.captions.values()))
    return _report(store, dataset, work.names_of(bad), None)


def _report(
    store: FeatureStore, dataset: Items, bad: Mapping[str, str], source: str | None, images: int = 0, texts: int = 0
) -> ExtractReport:
    """On `dataset`, of which the images `bad` (name -> reason) were left out, as the store says of `source` then."""
    skipped = list(dict.fromkeys(entry.image.name for entry in dataset if entry.image.name in bad))
    left_out = LeftOut()
    for name in skipped:
        left_out.add(bad[name], name)
    left_out = dataset.left_out | left_out
    if source is not None:
        note_left_out(store.path, source, left_out)
    return ExtractReport(images, texts, skipped, store, left_out)
