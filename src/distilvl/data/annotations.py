"""Readers of the annotation files of the benchmarks: Karpathy's JSON, and COCO's own caption files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distilvl.data.left_out import MALFORMED, BadItemError, Faults
from distilvl.data.listing import clean_captions, dataset_of, image_in, split_in_name, usual_split
from distilvl.data.records import PAIRS, PairDataset, Record
from distilvl.data.tables import read_json
from distilvl.errors import DistilvlError


def read_karpathy(
    path: str | Path,
    *,
    skip_bad: bool = False,
    image_folders: Sequence[str] = ("images",),
    roots: Sequence[Path] = (),
) -> PairDataset:
    """The dataset that a Karpathy JSON lists.

    Read are `images[].{filename, filepath?, split, sentids?, sentences[].{raw, sentid?}}`. The image files
    lie in `images/` beside the JSON, or right beside it. `image_id` is the file name, with `filepath` before
    it where there is one; caption ids are the `sentid`s. COCO's split `restval` counts as `train`, as is
    usual (`usual_split`). The ground truth is `pairs`, as in everything that was published on these files.

    Args:
        path: the JSON file.
        skip_bad: leave out and count bad entries (see `Faults`) and what `dataset_of` refuses, instead of raising.
        image_folders: names that the image folder beside the JSON may have; the first one that is there counts.
        roots: where the images are instead: the first is what paths are relative to, absolute ones may lie in any.

    Raises:
        DistilvlError: a file that is not such a JSON; unless `skip_bad`, a bad entry (by its number), a missing image
            file, duplicate ids, an image without captions.
    """
    path = Path(path)
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DistilvlError(
            f"{path} has no list 'images'.",
            "Give a Karpathy split file: {'images': [{'filename', 'split', 'sentences': [{'raw'}]}]}.",
        )
    folders = [*roots[:1], *(path.parent / name for name in image_folders)]
    root = next((folder for folder in folders if folder.is_dir()), path.parent)
    name = path.resolve().parent.name
    faults, records = Faults(name, skip_bad=skip_bad), []
    for number, entry in enumerate(images):
        where = f"{path}, images[{number}]"
        record = faults.attempt(functools.partial(_record, entry, root, where, roots))
        if record is not None:
            records.append(record)
    return replace(dataset_of(name, records, faults), ground_truth=PAIRS)


def _record(entry: Any, root: Path, where: str, roots: Sequence[Path]) -> Record:
    if not isinstance(entry, dict):
        raise _bad(where, "is not an object")
    filename, prefix, split = entry.get("filename"), entry.get("filepath", ""), entry.get("split")
    sentences = entry.get("sentences")
    if not isinstance(filename, str) or not isinstance(prefix, str) or not isinstance(sentences, list):
        raise _bad(where, "lacks 'filename' or 'sentences'")
    named = f"{where} ({filename})"
    if not isinstance(split, str) or not split:
        raise _bad(named, f"has the split {split!r}")
    if not all(isinstance(sentence, dict) and "raw" in sentence for sentence in sentences):
        raise _bad(named, "has a sentence without 'raw'")
    image_id = f"{prefix.rstrip('/')}/{filename}" if prefix else filename
    return Record(
        image_id=image_id,
        image=image_in(root, image_id, where, roots),
        captions=clean_captions((sentence["raw"] for sentence in sentences), named),
        split=usual_split(split),
        given_ids=_caption_ids(entry, sentences),
    )


def _bad(where: str, problem: str) -> BadItemError:
    remedy = "Every image has 'filename', 'split' and a list 'sentences'."
    return BadItemError(f"{where} {problem}", remedy, name=where, reason=MALFORMED)


def _caption_ids(entry: dict[str, Any], sentences: list[dict[str, Any]]) -> tuple[str, ...]:
    """The `sentid` of each sentence, or of the image's list; none (the default ids) without either."""
    if all("sentid" in sentence for sentence in sentences):
        return tuple(str(sentence["sentid"]) for sentence in sentences)
    listed = entry.get("sentids")
    if isinstance(listed, list) and len(listed) == len(sentences):
        return tuple(str(sentid) for sentid in listed)
    return ()


_REMEDY = "Give a COCO caption file: {'images': [{'id', 'file_name'}], 'annotations': [{'image_id', 'caption', 'id'}]}."


def read_coco_captions(paths: Sequence[Path], *, skip_bad: bool = False, roots: Sequence[Path] = ()) -> PairDataset:
    """The dataset of one or more COCO caption files, such as `captions_train2017.json` and `captions_val2017.json`.

    The split of a file's images is the word in its name: `train` or `val`; `train` if there is none. The figures
    published for retrieval on COCO are of Karpathy's splits instead (`read_karpathy`). `image_id` is the file name,
    caption ids are the annotations' ids. The images of `captions_<part>.json` lie in `<part>/`, `images/<part>/` or
    `images/`, beside the file or beside its folder if that is called `annotations`.

    Args:
        paths: the files, at least one.
        skip_bad: leave out and count bad entries (see `Faults`), captions of images that are not listed and what
            `dataset_of` refuses, instead of raising.
        roots: where the images are instead: the first is what paths are relative to, absolute ones may lie in any.

    Raises:
        DistilvlError: a file that is not such a JSON, no image folder; unless `skip_bad`, a bad entry (by its number),
            a missing image file, duplicate ids, an image without captions.
    """
    home = _homes(paths[0])[-1].resolve().name
    faults = Faults(home, skip_bad=skip_bad)
    records = [record for path in paths for record in _records(path, faults, roots)]
    return dataset_of(home, records, faults)


def _records(path: Path, faults: Faults, roots: Sequence[Path]) -> Iterator[Record]:
    content = read_json(path)
    images, annotations = (_entries(content, name, path) for name in ("images", "annotations"))
    split = split_in_name(path) or "train"
    captions = _captions(annotations, path, faults)
    root = roots[0] if roots else None
    for number, entry in enumerate(images):
        where = f"{path}, images[{number}]"
        root = root or _image_folder(path)
        image = faults.attempt(functools.partial(image_in, root, entry.get("file_name"), where, roots))
        key = faults.attempt(functools.partial(_field, entry, "id", where))
        held = captions.pop(key, [])
        if image is not None and key is not None:
            yield Record(
                str(entry["file_name"]), image, tuple(text for _, text in held), split, tuple(key for key, _ in held)
            )
    for key in captions:
        faults.add(
            BadItemError(
                f"{path} has captions of image {key!r}, which it does not list",
                _REMEDY,
                name=f"{path}, image {key!r}",
                reason="captions of an image that is not listed",
            )
        )


def _captions(annotations: Sequence[dict[str, Any]], path: Path, faults: Faults) -> dict[Any, list[tuple[str, str]]]:
    """Id and text of the captions of each image, by the image's id."""
    captions: dict[Any, list[tuple[str, str]]] = {}
    for number, entry in enumerate(annotations):
        found = faults.attempt(functools.partial(_caption, entry, f"{path}, annotations[{number}]"))
        if found is not None:
            captions.setdefault(found[0], []).append(found[1:])
    return captions


def _caption(entry: dict[str, Any], where: str) -> tuple[int | str, str, str]:
    """Image's id, caption's id, text."""
    image, key = _field(entry, "image_id", where), str(_field(entry, "id", where))
    return image, key, clean_captions([entry.get("caption")], where)[0]


def _entries(content: Any, name: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DistilvlError(f"{path} has no list of objects {name!r}.", _REMEDY)
    return entries


def _field(entry: dict[str, Any], name: str, where: str) -> int | str:
    value = entry.get(name)
    if not isinstance(value, (int, str)):
        raise BadItemError(f"{where} has no {name!r}", _REMEDY, name=where, reason=MALFORMED)
    return value


def _homes(path: Path) -> list[Path]:
    return [path.parent, path.parent.parent] if path.resolve().parent.name == "annotations" else [path.parent]


def _image_folder(path: Path) -> Path:
    part = path.stem.removeprefix("captions_")
    tried = [home / name for home in reversed(_homes(path)) for name in (part, f"images/{part}", "images")]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise DistilvlError(
        f"the images of {path} are not found: there is no folder {', '.join(map(str, tried))}.",
        "Put them into one of these.",
    )
