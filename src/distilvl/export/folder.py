"""The folder of an export, which appears whole under its name or not at all, and its manifest."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.io.files import new_folder
from distilvl.runtime.manifest import MANIFEST_NAME, Manifest, is_export


def export_folder(out: Path) -> AbstractContextManager[Path]:
    """A `new_folder` that replaces an earlier export; `DistilvlError` when `out` is something else."""
    if out.exists() and not is_export(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DistilvlError(f"{out} exists and is not an exported student.", "Choose another --out.")
    return new_folder(out, replace=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put `manifest.json` in the folder."""
    text = json.dumps(manifest.as_dict(), indent=2) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
