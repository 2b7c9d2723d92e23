"""What a teacher is, and its revision."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError, one_line

ACCEPTED_TEACHERS = (
    "Accepted are: 'demo'; a feature store or a folder of feature arrays; path/to/file.py:Class; a run, a student's "
    "folder or one of distilvl export; a transformers dual encoder or SentenceTransformer (folder or hub id); "
    "beit3:base:CHECKPOINT:VOCABULARY; open_clip:MODEL/WEIGHTS; openai+https://HOST/PATH; "
    "KIND:... of an installed package."
)


@runtime_checkable
class Teacher(Protocol):
    """All that is needed of a teacher (eq. 1-2 of the paper: its output features).

    A teacher may also have `num_parameters: int` and `preprocessing: str`; both are recorded when present.
    """

    name: str
    revision: str
    dim: int

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to floating-point embeddings, shape (n, dim)."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to floating-point embeddings, shape (n, dim)."""


Arrived = Callable[[Sequence[int], npt.NDArray[Any]], None]
"""Told the positions of items that were encoded, and their embeddings, shape (n, dim); called from any thread."""


@runtime_checkable
class PiecewiseTeacher(Protocol):
    """What a teacher has besides the `Teacher` protocol when every embedding costs money.

    An item's embedding must not depend on the other items. Both methods return when every item has been encoded
    once, or raise when all that could be encoded has been: `UnansweredError` where single items are at fault.
    """

    def deliver_images(self, images: Sequence[Image.Image], arrived: Arrived) -> None:
        """Encode all RGB `images`, in any order."""

    def deliver_texts(self, texts: Sequence[str], arrived: Arrived) -> None:
        """Encode all `texts`, in any order."""

    def estimate(self, images: int, texts: Sequence[str]) -> str:
        """One line on what encoding so many images and `texts` will take, in requests, time and money."""


class UnansweredError(DistilvlError):
    """Items that the teacher was given and did not encode.

    Args:
        positions: which ones, of those in the call; at least one.
        reason, remedy: what went wrong, as part of a sentence, and what the user can do about it.
        refused: the teacher was reached and does not take these items, so that they may be left out as bad ones.
    """

    def __init__(self, positions: Sequence[int], reason: str, remedy: str, *, refused: bool = False) -> None:
        super().__init__(f"{len(positions)} items were not encoded: {reason}.", remedy)
        self.positions, self.reason, self.remedy, self.refused = list(positions), reason, remedy, refused


def said(error: BaseException, most: int | None = None) -> str:
    """Kind and words of an error on one line, without the full stop; of the words so many letters at most."""
    words, kind = one_line(error, most), type(error).__name__
    return kind if words == kind else f"{kind}: {words}"


@contextmanager
def loading(what: str, remedy: str, most: int | None = 200) -> Iterator[None]:
    """Whatever is raised within, by libraries or in code that is not ours, becomes "`what`: ..."; it is the cause."""
    try:
        yield
    except DistilvlError:
        raise
    except (Exception, SystemExit) as error:  # a script may end the program when it is imported
        raise DistilvlError(f"{what}: {said(error, most)}.", remedy) from error


_DECIDING = (".safetensors", ".bin", ".json", ".txt", ".model")


def name_and_revision(source: str) -> tuple[str, str]:
    """Of a folder its last part and `folder_hash`; of a hub id itself and `hub_commit`."""
    folder = Path(source)
    return (folder.resolve().name, folder_hash(folder)) if folder.is_dir() else (source, hub_commit(source))


def folder_hash(folder: Path) -> str:
    """Hash of all files of `folder` that decide a model's output: weights, configuration and vocabulary."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _DECIDING and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def hub_commit(model_id: str) -> str:
    """The commit of the snapshot in the hub's cache; `DistilvlError` if the cache does not hold the model."""
    from huggingface_hub import try_to_load_from_cache

    # Short ids such as `clip-ViT-B-32` stand for models of this organisation.
    for repository in (model_id, f"sentence-transformers/{model_id}"):
        for name in ("modules.json", "config.json"):
            cached = try_to_load_from_cache(repository, name) if repository.count("/") == 1 else None
            if isinstance(cached, str):
                return Path(cached).parent.name
    what = f"the revision of {model_id} is unknown: it is not in the hub's cache."
    raise DistilvlError(what, "Save the model to a folder and give that folder.")
