"""A folder that appears whole under its name, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.runtime.manifest import MANIFEST_NAME, Manifest, is_export


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `out` when the block ends well and removed otherwise.

    Raises:
        DistilvlError: `out` is there and is no earlier export, or the disk does not take the files.
    """
    if out.exists() and not is_export(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DistilvlError(f"{out} exists and is not an exported student.", "Choose another --out.")
    staging, old = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        if out.exists():
            out.replace(old)
        staging.replace(out)
    except OSError as error:
        raise DistilvlError(
            f"cannot write {out}: {error.strerror or error}.", "Free space or choose another --out, and run again."
        ) from error
    finally:
        if old.exists() and not out.exists():
            old.replace(out)
        for left in (staging, old):
            shutil.rmtree(left, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put `manifest.json` in the folder."""
    text = json.dumps(manifest.as_dict(), indent=2) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
