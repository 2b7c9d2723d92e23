"""Reader of COCO's own caption files: `annotations/captions_train2017.json` with the images in `train2017/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distilvl.data.json_files import read_json
from distilvl.data.listing import clean_caption, dataset_of, image_in, split_in_name
from distilvl.data.records import PairDataset, Record
from distilvl.errors import DistilvlError

_REMEDY = "Give a COCO caption file: {'images': [{'id', 'file_name'}], 'annotations': [{'image_id', 'caption', 'id'}]}."


def read_coco_captions(paths: Sequence[Path], *, skip_bad: bool = False) -> PairDataset:
    """The dataset of one or more COCO caption files, such as `captions_train2017.json` and `captions_val2017.json`.

    The split of a file's images is the word in its name: `train` or `val`; `train` if there is none. The figures
    published for retrieval on COCO are of Karpathy's splits instead (`read_karpathy`). `image_id` is the file name,
    caption ids are the annotations' ids. The images of `captions_<part>.json` lie in `<part>/`, `images/<part>/` or
    `images/`, beside the file or beside its folder if that is called `annotations`.

    Args:
        paths: the files, at least one.
        skip_bad: leave out images whose file is missing, instead of raising.

    Raises:
        DistilvlError: a file that is not such a JSON, a bad entry (by its number), no image folder, a missing image
            file, duplicate ids, an image without captions.
    """
    home = _homes(paths[0])[-1].resolve().name
    records = [record for path in paths for record in _records(path)]
    return dataset_of(home, records, skip_bad=skip_bad)


def _records(path: Path) -> Iterator[Record]:
    content = read_json(path)
    images, annotations = (_entries(content, name, path) for name in ("images", "annotations"))
    split = split_in_name(path) or "train"
    captions: dict[Any, list[tuple[str, str]]] = {}
    for number, entry in enumerate(annotations):
        where = f"{path}, annotations[{number}]"
        captions.setdefault(_field(entry, "image_id", where), []).append(
            (str(_field(entry, "id", where)), clean_caption(entry.get("caption"), where))
        )
    root = None
    for number, entry in enumerate(images):
        where = f"{path}, images[{number}]"
        name = entry.get("file_name")
        root = root or _image_folder(path)
        image = image_in(root, name, where)
        held = captions.pop(_field(entry, "id", where), [])
        yield Record(str(name), image, tuple(text for _, text in held), split, tuple(key for key, _ in held))
    if captions:
        raise DistilvlError(f"{path} has captions of image {next(iter(captions))!r}, which it does not list.", _REMEDY)


def _entries(content: Any, name: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DistilvlError(f"{path} has no list of objects {name!r}.", _REMEDY)
    return entries


def _field(entry: dict[str, Any], name: str, where: str) -> int | str:
    value = entry.get(name)
    if not isinstance(value, (int, str)):
        raise DistilvlError(f"{where} has no {name!r}.", _REMEDY)
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
