"""`load_dataset`: one door to all kinds of data."""

from __future__ import annotations

from pathlib import Path

from distilvl.data.folder import read_folder
from distilvl.data.karpathy import read_karpathy
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError

_ACCEPTED = (
    "Accepted are: 'scenes' (the built-in data set); a folder with a Karpathy JSON (dataset*.json), "
    "a captions.jsonl or a captions.csv; or such a file itself."
)


def load_dataset(source: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset that `source` names.

    Args:
        source: `scenes`; a folder that holds `dataset*.json`, `captions.jsonl` or `captions.csv`; or one
            such file.
        skip_bad: leave out images whose file is missing (and log how many) instead of raising.

    Raises:
        DistilvlError: unknown name, missing path, a folder with no list or several, or a bad list; images
            that are there but cannot be decoded are found when they are read.
    """
    if source == "scenes":
        from distilvl.data.scenes import scenes_dataset

        return scenes_dataset()
    path = Path(source)
    if path.is_dir():
        path = _list_in(path)
    elif not path.is_file():
        raise DistilvlError(f"there is no data set {str(source)!r}.", _ACCEPTED)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return read_karpathy(path, skip_bad=skip_bad)
    if suffix in (".jsonl", ".csv"):
        return read_folder(path, skip_bad=skip_bad)
    raise DistilvlError(f"{path} is not a data set: its name ends in {suffix or 'nothing'!r}.", _ACCEPTED)


def _list_in(folder: Path) -> Path:
    """The one list of images that `folder` holds."""
    lists = sorted(folder.glob("dataset*.json"))
    lists += [folder / name for name in ("captions.jsonl", "captions.csv") if (folder / name).is_file()]
    if not lists:
        raise DistilvlError(f"the folder {folder} holds no list of images.", _ACCEPTED)
    if len(lists) > 1:
        raise DistilvlError(
            f"the folder {folder} holds several lists: {', '.join(path.name for path in lists)}.",
            "Give the one that you mean, by its path.",
        )
    return lists[0]
