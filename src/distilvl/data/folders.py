"""Readers of folders of images: with a list of captions (`captions.jsonl`, `.csv`, `.tsv`),
or a text file beside each."""

from __future__ import annotations

import functools
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distilvl.data.columns import (
    NO_CHOICE,
    Choice,
    Columns,
    ColumnType,
    Row,
    captions_in,
    find_captions,
    find_columns,
    find_image,
    merge_rows,
)
from distilvl.data.image_files import no_images, scan_folder
from distilvl.data.left_out import MALFORMED, NO_CAPTION, BadItemError, Faults
from distilvl.data.listing import dataset_of, image_in, missing, path_in, usual_split
from distilvl.data.records import FileImage, PairDataset
from distilvl.data.tables import read_lines, read_table, read_text
from distilvl.errors import DistilvlError

_REMEDY = 'Write one object a line: {"image": "a.jpg", "captions": ["..."]}.'


def read_folder(
    path: str | Path, *, chosen: Choice = NO_CHOICE, roots: Sequence[Path] = (), skip_bad: bool = False
) -> PairDataset:
    """The dataset of a caption list; images lie beside it, at paths relative to it.

    `captions.jsonl` has lines `{"image": "a.jpg", "captions": ["...", ...]}` or `{"image": "a.jpg",
    "caption": "..."}`, with optional `split` and `image_id`. `captions.csv` and `captions.tsv` have a header
    with the columns `image` and `caption` and optionally `split` and `image_id` (see `read_table`). Other usual names
    of these are found too (`find_columns`), or chosen. Lines of the same image are merged. Splits go by their usual
    names (`usual_split`). Without any split the images are divided by a hash of their id, about 80 % train, 10 % val,
    10 % test (`split_of`). `image_id` is the path unless given.

    Args:
        path: the list; any name ending in `.jsonl`, `.csv` or `.tsv`, in UTF-8 or in UTF-16 with its mark.
        chosen: columns, or keys of JSON lines, by name.
        roots: the folders of the images instead of the list's: the first is what paths are relative to, absolute ones
            may lie in any. Without them absolute paths may lie in the list's folder only.
        skip_bad: leave out and count malformed lines (see `Faults`) and what `dataset_of` refuses, instead of raising.

    Raises:
        DistilvlError: no such columns; unless `skip_bad`, names the file and line of a malformed entry; a missing image
            file, duplicate ids, an image without captions.
    """
    path = Path(path)
    name, suffix = path.resolve().parent.name, path.suffix.lower()
    faults = Faults(name, skip_bad=skip_bad)
    if suffix in (".csv", ".tsv"):
        lines = read_table(path, chosen, faults, tabs=suffix == ".tsv")
    else:
        lines = _jsonl_lines(path, chosen, faults)
    root = roots[0] if roots else path.parent
    rows = (
        row
        for where, columns, values in lines
        if (row := faults.attempt(functools.partial(_row, root, roots, where, columns, values))) is not None
    )
    return dataset_of(name, merge_rows(rows, str(path), faults), faults)


def _row(root: Path, roots: Sequence[Path], where: str, columns: Columns, values: Mapping[str, Any]) -> Row:
    name = values.get(columns.image)
    image = image_in(root, name, where, roots)
    split = values.get(columns.split) if columns.split else None
    split = usual_split(split) if isinstance(split, str) else split
    captions = [caption for name in columns.captions if name in values for caption in captions_in(values[name])]
    image_id = values.get(columns.image_id) if columns.image_id else None
    return Row(where, path_in(root, str(name)), image, captions, split, image_id)


def _jsonl_lines(path: Path, chosen: Choice, faults: Faults) -> Iterator[tuple[str, Columns, Mapping[str, Any]]]:
    """Each line with its place and what its keys mean; lines may differ in their keys."""
    known: dict[tuple[tuple[str, ColumnType], ...], Columns] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        values = faults.attempt(functools.partial(_object, line, where))
        if values is None:
            continue
        types = tuple((key, _type(value)) for key, value in values.items())
        if types not in known:
            known[types] = _keys(dict(types), chosen, where)
        yield where, known[types], values
    if known and not any(columns.captions for columns in known.values()):
        types, columns = next(iter(known.items()))
        image = columns.image if columns.image in dict(types) else None
        find_columns(dict(types), str(path), Choice(image), paths=True)  # its error says what there is


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadItemError(f"{where} is not valid JSON", _REMEDY, name=where, reason=MALFORMED) from error
    if not isinstance(values, dict):
        raise BadItemError(f"{where} is not an object", _REMEDY, name=where, reason=MALFORMED)
    if not isinstance(values.get("captions"), (list, type(None))):
        raise BadItemError(f"{where}: 'captions' is not a list", _REMEDY, name=where, reason=MALFORMED)
    return values


def _keys(types: Mapping[str, ColumnType], chosen: Choice, where: str) -> Columns:
    """What the keys of a line mean: `image`, `captions` and `caption` always what they say, others as in a table.

    Without a key of an image it is `image`, which the line then lacks; without one of captions it has none.
    """
    image = chosen.image or ("image" if "image" in types else None)
    captions = chosen.captions or tuple(name for name in ("captions", "caption") if name in types)
    if image is None:
        with suppress(DistilvlError):
            image = find_image(types, where, paths=True)
    if not captions:
        with suppress(DistilvlError):
            captions = find_captions(types, image or "image", where)
    return Columns(image or "image", captions, chosen.split or "split", chosen.image_id or "image_id")


def _type(value: Any) -> ColumnType:
    return "text" if isinstance(value, (str, list, dict)) else "number" if isinstance(value, int) else "other"


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
