"""Reader of Karpathy's JSON: the split file of Flickr8k, Flickr30k and COCO in image-text retrieval."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distilvl.data.faults import MALFORMED, BadItemError, Faults
from distilvl.data.json_files import read_json
from distilvl.data.listing import clean_captions, dataset_of, image_in, usual_split
from distilvl.data.records import PAIRS, PairDataset, Record
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
