"""Licences of towers and teachers, as far as they can be known without asking anyone."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

UNKNOWN = "unknown"
_FROM_FILE = (
    ("Apache-2.0", r"Apache License\s+Version 2\.0"),
    ("MIT", r"\bMIT License\b|Permission is hereby granted, free of charge"),
    ("BSD-3-Clause", r"Neither the name of"),
    ("CC-BY-NC-4.0", r"Attribution-NonCommercial 4\.0"),
    ("CC-BY-4.0", r"Attribution 4\.0 International"),
)
# Stated on the models' own pages or in their repositories; by the beginning of the name, longest first.
_PUBLISHED = {
    "google/bert_uncased": "Apache-2.0",
    "google-bert/bert-base-uncased": "Apache-2.0",
    "google/vit-": "Apache-2.0",
    "google/siglip": "Apache-2.0",
    "openai/clip-": "MIT",
    "facebook/dinov2": "Apache-2.0",
    "facebook/deit": "Apache-2.0",
    "sentence-transformers/all-minilm": "Apache-2.0",
    "beit3": "MIT",
    "demo": "Apache-2.0, part of distilvl",
}


def licence_of(model: str | None) -> str:
    """The licence of a model's folder or public name; `unknown` where nothing here tells.

    A folder is asked for the `license` line of its README.md and for a LICENSE file, in it or right above it.
    """
    if not model:
        return UNKNOWN
    folder = Path(model)
    if folder.is_dir():
        return _of_folder(folder)
    lowered = model.lower()
    known = [name for name in _PUBLISHED if lowered.startswith(name)]
    return _PUBLISHED[max(known, key=len)] if known else UNKNOWN


def _of_folder(folder: Path) -> str:
    stated = _front_matter(folder / "README.md").get("license")
    if isinstance(stated, str) and stated:
        return stated
    for place in (folder, folder.resolve().parent):
        for path in sorted(place.glob("LICEN[CS]E*")):
            text = path.read_text(encoding="utf-8", errors="replace")[:4000] if path.is_file() else ""
            found = next((name for name, pattern in _FROM_FILE if re.search(pattern, text)), None)
            if found:
                return found
    return UNKNOWN


def _front_matter(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        values = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, IndexError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
