"""Every reader x every kind of item that it leaves out: what it says and counts; makes the table in docs/data.md.

`UPDATE_DOCS=1 pytest tests/data/test_left_out_by_readers.py` writes the table anew.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distilvl.data import PairDataset, UnpairedDataset, load_any
from distilvl.errors import DistilvlError
from distilvl.evaluation.zero_shot import read_labels

GOOD = 4
DOCS = Path(__file__).parents[2] / "docs" / "data.md"
BEGIN, END = "<!-- made by tests/data/test_left_out_by_readers.py -->", "<!-- end -->"

Data = PairDataset | UnpairedDataset
Load = Callable[[bool], Data]
Build = Callable[[Path, str], "Load | None"]


@dataclass(frozen=True)
class Outcome:
    """What a reader does with one item that it cannot use."""

    error: bool
    reason: str


KINDS = {
    "null": "an image without a caption: null, an empty list or no text file",
    "blank": "an image with a blank caption or an empty text file",
    "number": "a caption that is a number",
    "malformed": "a row or entry that is not of the list's form",
    "missing": "an image file that is missing, or a link to nothing",
    "outside": "`../x.png`, or an absolute path elsewhere",
    "twice": "an id that another image has",
    "no image": "a caption whose image is not in the list or shard",
    "text alone": "a text file without an image",
    "raw": "RAW, HEIC without its plugin, video and the like",
    "ending": "an unknown ending",
    "hidden": "a hidden picture or folder",
    "nas": "a folder of a NAS, a waste bin or the system",
    "circle": "a link to a folder above it",
    "dead folder": "a link to a folder that is gone",
    "pipe": "a pipe, a socket or a device",
    "bytes": "a file name that is not valid Unicode",
    "unlisted": "a folder that may not be listed",
}
ITEM = re.compile(
    r"\bx\.|\bx/|/x$|^x$|gone\.png|@eaDir|row 4|line [56]|(images|annotations)\[4\]|'[x0]'|\b0\.png|image 9|x\\xe9"
)
"""The one item, or its place in the list, as the readers name it."""

ALWAYS = {"raw", "ending", "hidden", "nas", "circle", "dead folder", "pipe", "bytes", "text alone"}
"""Kinds that are left out without `--skip-bad`."""


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(root: Path) -> Path:
    """The folder with the good images, and x.png."""
    root.mkdir(parents=True)
    for k in range(GOOD):
        (root / f"{k}.png").write_bytes(png(k))
    (root / "x.png").write_bytes(png(99))
    return root


def entries(kind: str) -> list[tuple[str, Any]] | None:
    """Image and caption of each row of a list, the last one bad; nothing for kinds that no row can be."""
    bad = {
        "null": ("x.png", None),
        "blank": ("x.png", "  "),
        "number": ("x.png", 3),
        "missing": ("gone.png", "x"),
        "outside": ("../x.png", "x"),
    }
    return [(f"{k}.png", f"caption {k}") for k in range(GOOD)] + [bad[kind]] if kind in bad else None


def opened(source: str) -> Load:
    return lambda skip_bad: load_any(source, skip_bad=skip_bad)


def text_list(name: str, line: Callable[[str, Any], str], header: str, malformed: str) -> Build:
    def build(root: Path, kind: str) -> Load | None:
        rows = entries("null")[:-1] if kind == "malformed" else entries(kind)
        if rows is None or (kind == "number" and not name.endswith("jsonl")):
            return None
        text = header + "".join(line(*row) for row in rows) + (malformed if kind == "malformed" else "")
        (pictures(root) / name).write_text(text)
        return opened(str(root))

    return build


def folder(place: Path, kind: str) -> bool:
    """Put the item of a folder scan into a folder of images; whether there is such a kind."""
    if kind in ("raw", "ending", "hidden"):
        (place / {"raw": "x.CR2", "ending": "x.xyz", "hidden": ".x.png"}[kind]).write_bytes(b"x")
    elif kind == "nas":
        (place / "@eaDir").mkdir()
        (place / "@eaDir" / "x.png").write_bytes(png(7))
    elif kind == "circle":
        (place / "x").symlink_to(place)
    elif kind in ("dead folder", "missing"):
        (place / ("x" if kind == "dead folder" else "x.png")).symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(place / "x.png")
    elif kind == "bytes":
        Path(os.fsdecode(os.fsencode(place) + b"/x\xe9.png")).write_bytes(png(7))
    elif kind == "unlisted":
        (place / "x").mkdir()
    else:
        return False
    return True


def sidecars(root: Path, kind: str) -> Load | None:
    pictures(root)
    for k in range(GOOD):
        (root / f"{k}.txt").write_text(f"caption {k}")
    if kind == "blank":
        (root / "x.txt").write_text("\n")
    elif kind == "text alone":
        (root / "x.png").rename(root.parent / "x.png")
        (root / "x.txt").write_text("x")
    elif kind != "null":
        (root / "x.png").unlink()
        if not folder(root, kind):
            return None
    return opened(str(root))


def unpaired(root: Path, kind: str) -> Load | None:
    (pictures(root / "images") / "x.png").unlink()
    (root / "texts.txt").write_text("one\ntwo\n")
    return opened(f"unpaired:{root / 'images'},{root / 'texts.txt'}") if folder(root / "images", kind) else None


def labels(root: Path, kind: str) -> Load | None:
    (pictures(root / "cat") / "x.png").unlink()
    return (lambda skip_bad: read_labels(root, skip_bad=skip_bad)) if folder(root / "cat", kind) else None


def table_of_paths(root: Path, kind: str) -> Load | None:
    rows = entries(kind)
    if rows is None or kind == "number":
        return None
    images, captions = zip(*rows, strict=True)
    pictures(root)
    pq.write_table(pa.table({"image": images, "caption": pa.array(captions, pa.string())}), root / "a.parquet")
    return opened(str(root))


def of_bytes(kind: str) -> pa.Table | None:
    captions = {"null": [None], "blank": [" "]}.get(kind)
    if captions is None:
        return None
    texts = [[f"caption {k}"] for k in range(GOOD)] + [captions]
    return pa.table({"image": [png(k) for k in range(GOOD + 1)], "captions": texts})


def table_of_bytes(root: Path, kind: str) -> Load | None:
    table = of_bytes(kind)
    if table is None:
        return None
    root.mkdir()
    pq.write_table(table, root / "a.parquet")
    return opened(str(root))


def saved(root: Path, kind: str) -> Load | None:
    table = of_bytes(kind)
    if table is None:
        return None
    datasets.Dataset(table).save_to_disk(str(root))
    return opened(str(root))


def karpathy_json(root: Path, kind: str) -> bool:
    malformed = kind in ("malformed", "twice")
    rows = entries("null")[:-1] if malformed else entries(kind)
    if rows is None:
        return False
    images: list[Any] = [{"filename": name, "split": "train", "sentences": [{"raw": text}]} for name, text in rows]
    images += [3] if kind == "malformed" else images[:1] if kind == "twice" else []
    (pictures(root) / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    return True


def karpathy(root: Path, kind: str) -> Load | None:
    return opened(str(root)) if karpathy_json(root, kind) else None


def named(root: Path, kind: str) -> Load | None:
    return opened(f"flickr8k:{root}") if karpathy_json(root, kind) else None


def coco(root: Path, kind: str) -> Load | None:
    alone = kind in ("malformed", "twice", "no image")
    rows = entries("null")[:-1] if alone else entries(kind)
    if rows is None:
        return None
    images: list[Any] = [{"id": k, "file_name": name} for k, (name, _) in enumerate(rows)]
    captions: list[Any] = [{"id": k, "image_id": k, "caption": text} for k, (_, text) in enumerate(rows)]
    if kind == "malformed":
        images.append({"file_name": "x.png"})
    elif kind == "twice":
        images.append({"id": 9, "file_name": "0.png"})
    if kind in ("twice", "no image"):
        captions.append({"id": 9, "image_id": 9, "caption": "x"})
    if kind == "number":
        captions[-1:] = [{"id": 7, "image_id": 0, "caption": 3}]
        images.pop()
    pictures(root / "images")
    (root / "captions_train.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return opened(str(root))


def shards(root: Path, kind: str) -> Load | None:
    members = [(f"{k}.{end}", data) for k in range(GOOD) for end, data in (("png", png(k)), ("txt", b"x"))]
    bad = {
        "null": [("x.png", png(9)), ("x.json", b'{"caption": null}')],
        "blank": [("x.png", png(9)), ("x.txt", b" ")],
        "number": [("x.png", png(9)), ("x.json", b'{"caption": 3}')],
        "malformed": [("x.png", png(9)), ("x.json", b"{")],
        "no image": [("x.txt", b"x")],
        "outside": [("../x.png", png(9))],
        "twice": [("0.png", png(9)), ("0.txt", b"x")],
        "raw": [("x.cr2", b"x"), ("x.txt", b"x")],
    }.get(kind)
    if bad is None and kind not in ("hidden", "nas"):
        return None
    root.mkdir()
    write(root / "a.tar", [*members, *(bad or [])])
    if bad is None:
        place = root / ("@eaDir" if kind == "nas" else ".x")
        place.mkdir()
        write(place / "x.tar", members)
    return opened(f"webdataset:{root}")


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


READERS: dict[str, Build] = {
    "text files beside images": sidecars,
    "JSONL": text_list(
        "captions.jsonl", lambda name, text: json.dumps({"image": name, "caption": text}) + "\n", "", "{\n"
    ),
    "CSV": text_list("captions.csv", lambda name, text: f"{name},{text or ''}\n", "image,caption\n", "x.png\n"),
    "TSV": text_list("captions.tsv", lambda name, text: f"{name}\t{text or ''}\n", "image\tcaption\n", "x.png\n"),
    "Parquet with paths": table_of_paths,
    "Parquet with images": table_of_bytes,
    "`hf:`, `save_to_disk`": saved,
    "Karpathy": karpathy,
    "`flickr8k`, ...": named,
    "COCO": coco,
    "`webdataset:`": shards,
    "`unpaired:`": unpaired,
    "`eval --labels`": labels,
}


def outcome(load: Load, kind: str, root: Path) -> Outcome:
    """What happens without and with `--skip-bad`; each is looked at."""
    try:
        kept, error = load(False), ""
    except DistilvlError as raised:
        kept, error = load(True), str(raised)
    assert len(kept) == GOOD
    assert len(kept.left_out) == 1, "one item, counted once"
    ((name, reason),) = kept.left_out.items()
    assert ITEM.search(name.replace(str(root), "")), name
    assert not error or kind == "unlisted" or "--skip-bad" in error
    assert len(load(True).left_out) == 1
    return Outcome(bool(error), reason)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Outcome]:
    """By kind and reader; kinds that a reader cannot meet are not there."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "x" and "unlisted" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    places, found = tmp_path_factory.mktemp("readers"), {}
    for number, (reader, build) in enumerate(READERS.items()):
        for kind in KINDS:
            root = places / f"{number}-{kind.replace(' ', '-')}"
            load = build(root, kind)
            if load is not None:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(os, "scandir", refuse)
                    found[kind, reader] = outcome(load, kind, root)
    return found


def test_what_is_an_error_and_what_is_left_out(outcomes: dict[tuple[str, str], Outcome]) -> None:
    assert {kind for kind, _ in outcomes} == set(KINDS)
    assert {kind for (kind, _), one in outcomes.items() if not one.error} == ALWAYS
    assert {kind for (kind, _), one in outcomes.items() if one.error} == set(KINDS) - ALWAYS


def test_the_table_in_the_documentation_is_this_one(outcomes: dict[tuple[str, str], Outcome]) -> None:
    text = DOCS.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    expected = f"{before}{BEGIN}\n\n{as_table(outcomes)}\n{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(expected)
    assert text == expected, "run it with UPDATE_DOCS=1"


def as_table(outcomes: dict[tuple[str, str], Outcome]) -> str:
    lines = ["| item | reader | without `--skip-bad` | counted as |", "|---|---|---|---|"]
    for kind, what in KINDS.items():
        alike: dict[Outcome, list[str]] = {}
        for (one, reader), found in outcomes.items():
            if one == kind:
                alike.setdefault(found, []).append(reader)
        for found, readers in alike.items():
            says = "error, exit code 2" if found.error else "left out"
            lines.append(f"| {what} | {', '.join(readers)} | {says} | `{found.reason}` |")
    return "\n".join(lines) + "\n"
