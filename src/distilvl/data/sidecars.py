"""Reader of a folder of images, each with a text file of the same name: `a.jpg` and `a.txt`."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from distilvl.data.faults import BadItemError, Faults
from distilvl.data.image_files import no_images, scan_folder
from distilvl.data.left_out import NO_CAPTION
from distilvl.data.listing import dataset_of, missing, usual_split
from distilvl.data.merging import Row, merge_rows
from distilvl.data.records import FileImage, PairDataset
from distilvl.data.text_files import read_text
from distilvl.errors import DistilvlError

TEXT_ALONE = "a text file without an image"

_SPLITS = ("train", "val", "test")
_LISTS = (".csv", ".json", ".jsonl", ".tsv", ".txt")


def read_sidecars(folder: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset of an image folder whose captions stand in text files beside the images, one caption a line.

    Folders within are read too. If every image lies in a folder `train`, `val` (`validation`, `dev`) or `test` at the
    top, in small or large letters, these are the splits; an image outside of them is bad where there are two of them.
    Else the images are divided by a hash of their path (`split_of`). The names of other folders, such as classes, are
    no captions. What `scan_folder` passes over and text files without an image are counted in `left_out`.

    Args:
        folder: of the images.
        skip_bad: leave out and count images without a caption, links into nothing, text that cannot be read, and
            folders that may not be listed, instead of raising.

    Raises:
        BadImageError: a link into nothing, unless `skip_bad`.
        DistilvlError: no images, or none with a text file; unless `skip_bad`, an image without one or with an empty one
            (names the first and their number).
    """
    folder = Path(folder)
    found = scan_folder(folder, skip_bad=skip_bad)
    images = sorted([*found.images, *found.dead])
    if not images:
        raise no_images(folder, found.left_out)
    texts = {os.path.splitext(text)[0]: text for text in found.texts}  # noqa: PTH122 - quick, there may be many
    composed = {unicodedata.normalize("NFC", stem): stem for stem in texts if not stem.isascii()}
    stems = {name: _stem(name, texts, composed) for name in images}
    if texts.keys().isdisjoint(stems.values()):
        raise DistilvlError(
            f"the folder {folder} holds {len(stems)} images and no captions; names of folders are not captions.",
            "Write a captions.jsonl or captions.csv, put a .txt beside each image, or train without pairs: "
            f"unpaired:DIR,FILE.{_lists_there(folder)}",
        )
    faults = Faults(folder.resolve().name, skip_bad=skip_bad)
    faults.left_out.update(found.left_out)
    for stem in sorted(texts.keys() - set(stems.values()) - found.stems):
        faults.left_out.add(TEXT_ALONE, texts[stem])
    for name in found.dead:
        faults.add(missing(str(folder / name)))
        del stems[name]
    captions: dict[str, list[str]] = {}
    for name, stem in stems.items():
        held = faults.attempt(functools.partial(_captions, folder, name, texts.get(stem)))
        if held is not None:
            captions[name] = held
    faults.check(len(images))
    splits = {name: _split(name) for name in captions}
    # One folder that happens to be called `train` among others is a class, such as of railways.
    known = None not in splits.values() or len(set(splits.values()) - {None}) > 1
    for name in [name for name, split in splits.items() if known and split is None]:
        faults.add(_without_split(str(folder / name)))
        del captions[name]
    faults.check(len(images))
    rows = (
        Row(str(folder / name), name, FileImage(str(folder / name)), held, splits[name] if known else None)
        for name, held in captions.items()
    )
    return dataset_of(faults.source, merge_rows(rows, str(folder), faults), faults)


def _stem(name: str, texts: Mapping[str, str], composed: Mapping[str, str]) -> str:
    """What the text file of an image is called, whichever way its accents are composed."""
    stem = os.path.splitext(name)[0]  # noqa: PTH122 - quick, there may be many
    return stem if stem in texts or stem.isascii() else composed.get(unicodedata.normalize("NFC", stem), stem)


def _captions(folder: Path, name: str, text: str | None) -> list[str]:
    """The lines of the text file of an image."""
    if text is None:
        raise BadItemError(
            f"{folder / name} has no text file",
            "Put a .txt of the same name beside each image.",
            name=str(folder / name),
            reason=NO_CAPTION,
        )
    try:
        lines = read_text(folder / text).split("\n")
    except DistilvlError as error:
        raise BadItemError(
            str(error).rstrip("."), "", name=str(folder / text), reason="a text file that cannot be read"
        ) from error
    return [line for line in lines if line.strip()]


def _lists_there(folder: Path) -> str:
    """A sentence on files that may be the list of captions, under a name of their own; empty if there is none."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _LISTS and path.is_file())
    return f" There is {names[0]}: if it is the list, give its path." if names else ""


def _without_split(name: str) -> BadItemError:
    return BadItemError(
        f"{name} lies in none of the folders that are the splits",
        "Move it into one of them.",
        name=name,
        reason="in no split's folder, where other images are in one",
    )


def _split(name: str) -> str | None:
    split = usual_split(name.split("/")[0].lower())
    return split if "/" in name and split in _SPLITS else None
