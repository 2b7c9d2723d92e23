"""JSON lists, and a look at which kind of list one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distilvl.data.text_files import read_text
from distilvl.errors import DistilvlError


def read_json(path: Path) -> Any:
    """What the JSON file `path` holds; `DistilvlError` when it is no JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DistilvlError(f"{path} is not valid JSON ({reason}).", "Check that the file is complete.") from error
