"""The benchmarks of image-text retrieval: by name, and their annotation files (Karpathy's JSON, COCO's captions)."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distilvl.data.arrow import read_hub
from distilvl.data.columns import Choice
from distilvl.data.left_out import MALFORMED, BadItemError, Faults, LeftOut
from distilvl.data.listing import clean_captions, dataset_of, image_in, split_in_name, usual_split
from distilvl.data.records import PAIRS, FileImage, PairDataset, Record
from distilvl.data.tables import read_json
from distilvl.errors import DistilvlError

DATA_VARIABLE = "DISTILVL_DATA"  # the environment variable of the folder that holds `flickr30k/` and `coco/`
_COCO_COPY = "Multimodal-Fatima/COCO_captions"
_KARPATHY_REMEDY = "Every image has 'filename', 'split' and a list 'sentences'."
_COCO_LISTS = ("images", "annotations")
_COCO_FORM = "{'images': [{'id', 'file_name'}], 'annotations': [{'image_id', 'caption', 'id'}]}"
_COCO_REMEDY = f"Give a COCO caption file: {_COCO_FORM}."
_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark."""

    splits: Mapping[str, int]  # images of each, of Karpathy and Fei-Fei (CVPR 2015), COCO's `restval` as `train`
    image_folders: tuple[str, ...]  # names of the folder of photographs, the first one that is there counts
    layout: str  # what belongs into the folder, for a message
    hub: tuple[Mapping[str, Any], ...] = ()  # options of `read_hub` for the copies that together are the benchmark


BENCHMARKS: Mapping[str, Benchmark] = {
    "flickr8k": Benchmark(
        {"train": 6000, "val": 1000, "test": 1000},
        ("images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Images"),
        "Karpathy's dataset_flickr8k.json and the photographs in images/",
    ),
    "flickr30k": Benchmark(
        {"train": 29000, "val": 1014, "test": 1000},
        ("images", "flickr30k-images", "flickr30k_images"),
        "Karpathy's dataset_flickr30k.json and the photographs in images/ or flickr30k-images/",
        ({"name": "nlphuji/flickr30k", "revision": "refs/convert/parquet"},),
    ),
    "coco": Benchmark(
        {"train": 113287, "val": 5000, "test": 5000},
        ("images",),
        "Karpathy's dataset_coco.json and COCO's train2014/ and val2014/, there or in images/",
        tuple(
            {"name": f"{_COCO_COPY}_{part}", "chosen": Choice(captions=("sentences_raw",)), "split": usual_split(part)}
            for part in ("train", "validation", "test")
        ),
    ),
}


def read_named(name: str, place: str = "", *, skip_bad: bool = False) -> PairDataset:
    """One of the `BENCHMARKS` with its usual splits; `DistilvlError` says what to put where.

    `place` is its folder, or `hub` to download it, or empty for `$DISTILVL_DATA/<name>` or `<name>` here.
    """
    dataset = _from_hub(name, skip_bad=skip_bad) if place == "hub" else _from_folder(name, place, skip_bad=skip_bad)
    splits = (dataset.splits, BENCHMARKS[name].splits)
    if splits[0] != splits[1]:
        found, usual = (" / ".join(f"{count:,} {split}" for split, count in one.items()) for one in splits)
        _logger.warning("%s has %s images; the usual splits have %s.", name, found, usual)
    return dataset


def _from_folder(name: str, place: str, *, skip_bad: bool) -> PairDataset:
    folder = Path(place or Path(os.environ.get(DATA_VARIABLE, ""), name)).expanduser()
    benchmark, lists = BENCHMARKS[name], (f"dataset_{name}.json", "dataset.json")
    for file in lists:
        if (folder / file).is_file():
            found = read_karpathy(folder / file, skip_bad=skip_bad, image_folders=benchmark.image_folders)
            return replace(found, name=name)
    hub = f", or let {name}:hub download it" if benchmark.hub else ""
    remedy = f"Give that folder as {name}:/folder, or set {DATA_VARIABLE} to the folder around {name}/{hub}."
    problem = f"there is no {name} in {folder} (no {' or '.join(lists)})."
    raise DistilvlError(problem, f"Its folder holds {benchmark.layout}. {remedy}")


def _from_hub(name: str, *, skip_bad: bool) -> PairDataset:
    if not BENCHMARKS[name].hub:
        raise DistilvlError(f"no copy of {name} on the hub is known.", "Use hf:OWNER/NAME if you know one.")
    records: list[Record] = []
    left_out = LeftOut()
    for copy in BENCHMARKS[name].hub:
        part = read_hub(**copy, skip_bad=skip_bad)
        records += part.records
        left_out.update(part.left_out)
    return PairDataset(name, tuple(records), left_out, PAIRS)


def read_karpathy(
    path: str | Path, *, skip_bad: bool = False, image_folders: Sequence[str] = ("images",), roots: Sequence[Path] = ()
) -> PairDataset:
    """The dataset that a Karpathy JSON lists.

    Read are `images[].{filename, filepath?, split, sentids?, sentences[].{raw, sentid?}}`. The image files
    lie in the first of `image_folders` that is beside the JSON, or right beside it. `image_id` is the file name, with
    `filepath` before it where there is one; caption ids are the `sentid`s. COCO's split `restval` counts as `train`.
    The ground truth is `pairs`, as in all publications. For `roots`, `skip_bad` and errors see `listing`.
    """
    path = Path(path)
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        remedy = "Give a Karpathy split file: {'images': [{'filename', 'split', 'sentences': [{'raw'}]}]}."
        raise DistilvlError(f"{path} has no list 'images'.", remedy)
    folders = [*roots[:1], *(path.parent / name for name in image_folders)]
    root = next((folder for folder in folders if folder.is_dir()), path.parent)
    faults, records = Faults(path.resolve().parent.name, skip_bad=skip_bad), []
    for number, entry in enumerate(images):
        with faults:
            records.append(_karpathy_record(entry, root, f"{path}, images[{number}]", roots))
    return replace(dataset_of(faults.source, records, faults), ground_truth=PAIRS)


def _karpathy_record(entry: Any, root: Path, where: str, roots: Sequence[Path]) -> Record:
    if not isinstance(entry, dict):
        raise _malformed(where, "is not an object", _KARPATHY_REMEDY)
    filename, prefix, split = entry.get("filename"), entry.get("filepath", ""), entry.get("split")
    sentences = entry.get("sentences")
    if not isinstance(filename, str) or not isinstance(prefix, str) or not isinstance(sentences, list):
        raise _malformed(where, "lacks 'filename' or 'sentences'", _KARPATHY_REMEDY)
    named = f"{where} ({filename})"
    if not isinstance(split, str) or not split:
        raise _malformed(named, f"has the split {split!r}", _KARPATHY_REMEDY)
    if not all(isinstance(sentence, dict) and "raw" in sentence for sentence in sentences):
        raise _malformed(named, "has a sentence without 'raw'", _KARPATHY_REMEDY)
    image_id = f"{prefix.rstrip('/')}/{filename}" if prefix else filename
    # The ids of the captions: of each sentence, or of the image's list; without either they are the default ones.
    ids = entry.get("sentids")
    if all("sentid" in sentence for sentence in sentences):
        ids = [sentence["sentid"] for sentence in sentences]
    given = tuple(map(str, ids)) if isinstance(ids, list) and len(ids) == len(sentences) else ()
    image = image_in(root, image_id, where, roots)
    captions = clean_captions((sentence["raw"] for sentence in sentences), named)
    return Record(image_id, image, captions, usual_split(split), given)


def _malformed(where: str, problem: str, remedy: str) -> BadItemError:
    return BadItemError(f"{where} {problem}", remedy, where, MALFORMED)


def read_coco_captions(paths: Sequence[Path], *, skip_bad: bool = False, roots: Sequence[Path] = ()) -> PairDataset:
    """The dataset of one or more COCO caption files, such as `captions_train2017.json` and `captions_val2017.json`.

    The split of a file's images is the word in its name: `train` or `val`; `train` if there is none. (Published
    figures are of Karpathy's splits instead.) `image_id` is the file name, caption ids are the annotations' ids. The
    images of `captions_<part>.json` lie in `<part>/`, `images/<part>/` or `images/`, beside the file or beside its
    folder if that is called `annotations`. For `roots`, `skip_bad` and errors see `listing`.
    """
    home = _coco_homes(paths[0])[0].resolve().name
    faults = Faults(home, skip_bad=skip_bad)
    return dataset_of(home, [record for path in paths for record in _coco_records(path, faults, roots)], faults)


def _coco_records(path: Path, faults: Faults, roots: Sequence[Path]) -> Iterator[Record]:
    content = read_json(path)
    lists: dict[str, Any] = {name: content.get(name) if isinstance(content, dict) else None for name in _COCO_LISTS}
    for name, entries in lists.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DistilvlError(f"{path} has no list of objects {name!r}.", _COCO_REMEDY)
    images, annotations = lists.values()
    split = split_in_name(path) or "train"
    captions: dict[Any, list[tuple[str, str]]] = {}
    for number, entry in enumerate(annotations):
        with faults:
            where = f"{path}, annotations[{number}]"
            key, caption_id = _coco_id(entry, "image_id", where), str(_coco_id(entry, "id", where))
            text = clean_captions([entry.get("caption")], where)[0]
            captions.setdefault(key, []).append((caption_id, text))
    root = roots[0] if roots else _coco_folder(path) if images else path.parent
    for number, entry in enumerate(images):
        where = f"{path}, images[{number}]"
        image: FileImage | None = None
        with faults:
            image = image_in(root, entry.get("file_name"), where, roots)
        with faults:
            held = captions.pop(_coco_id(entry, "id", where), [])
            if image is not None:
                ids, texts = tuple(key for key, _ in held), tuple(text for _, text in held)
                yield Record(str(entry["file_name"]), image, texts, split, ids)
    for key in captions:
        problem, name = f"{path} has captions of image {key!r}, which it does not list", f"{path}, image {key!r}"
        faults.add(BadItemError(problem, _COCO_REMEDY, name, "captions of an image that is not listed"))


def _coco_id(entry: dict[str, Any], name: str, where: str) -> int | str:
    value = entry.get(name)
    if not isinstance(value, (int, str)):
        raise _malformed(where, f"has no {name!r}", _COCO_REMEDY)
    return value


def _coco_homes(path: Path) -> list[Path]:
    """The folders beside which images may lie, the farthest first."""
    return [path.parent.parent, path.parent] if path.resolve().parent.name == "annotations" else [path.parent]


def _coco_folder(path: Path) -> Path:
    part = path.stem.removeprefix("captions_")
    tried = [home / name for home in _coco_homes(path) for name in (part, f"images/{part}", "images")]
    for folder in tried:
        if folder.is_dir():
            return folder
    problem = f"the images of {path} are not found: there is no folder {', '.join(map(str, tried))}."
    raise DistilvlError(problem, "Put them into one of these.")
