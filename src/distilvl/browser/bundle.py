"""`write_bundle`: a static folder whose page searches photographs by itself."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from distilvl.browser.npm import web_files
from distilvl.browser.pictures import write_pictures
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.runtime import Runtime

_SHARED = ("search.css", "tiles.js", "icon.svg")
"""Of the page of `distilvl serve`."""


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        folder: to be put behind any web server.
        pictures: in its index.
        left_out: files of the folder that are not, by reason.
        size: bytes of all files.
    """

    folder: Path
    pictures: int
    left_out: LeftOut
    size: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        left_out = self.left_out.as_dict()
        return {"folder": str(self.folder), "pictures": self.pictures, "left_out": left_out, "size": self.size}


def write_bundle(
    exported: str | Path, photos: str | Path, out: str | Path, npm_files: str | Path | None = None
) -> Bundle:
    """Write page, libraries, the student's text tower and an index of `photos`; the folder appears whole or not at all.

    Args:
        exported: a folder that `distilvl export` wrote; its smallest precision is used, for the index too.
        photos: a folder of pictures.
        out: new folder.
        npm_files: a folder with the npm archives, for machines without network; see `web_files`.

    Raises:
        DistilvlError: `out` is there, not an exported student, no pictures, no npm packages, or a full disk.
    """
    exported, out = Path(exported), Path(out)
    if out.exists():
        raise DistilvlError(f"{out} exists already.", "Remove it, or choose another folder.")
    student = Runtime.load(exported)
    libraries = web_files(npm_files)
    staging = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        staging.mkdir(parents=True)
        pictures, left_out = write_pictures(Path(photos), student, staging)
        _write_page(staging)
        (staging / "npm").mkdir()
        for name, content in libraries.items():
            (staging / "npm" / name).write_bytes(content)
        _write_model(exported, student, staging)
        staging.replace(out)
    except OSError as error:
        raise DistilvlError(
            f"cannot write {out}: {error.strerror or error}.", "Free space or choose another folder, and run again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Bundle(out, pictures, left_out, size)


def _write_page(folder: Path) -> None:
    for source in files("distilvl.browser").joinpath("page").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    served = files("distilvl").joinpath("serving", "page")
    for name in _SHARED:
        text = served.joinpath(name).read_text(encoding="utf-8")
        # A static folder may lie anywhere below its host's root.
        (folder / name).write_text(text.replace('"/page/', '"./'), encoding="utf-8")


def _write_model(exported: Path, student: Runtime, folder: Path) -> None:
    manifest = student.manifest
    _, text = manifest.graphs(student.precision)
    shutil.copyfile(exported / text, folder / "text.onnx")
    shutil.copyfile(exported / manifest.tokenizer, folder / "tokenizer.json")
    about = {"name": manifest.name, "precision": student.precision, "width": manifest.width,
             "max_length": manifest.max_length}  # fmt: skip
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
