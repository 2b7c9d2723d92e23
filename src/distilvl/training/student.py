"""The student of a run: built, tried, and made ready to train as the configuration says."""

from __future__ import annotations

from collections.abc import Collection

from lightning_fabric import Fabric, seed_everything

from distilvl.config import Config
from distilvl.students import DualEncoder, build_student, load_student
from distilvl.students.trial import try_gradients, try_student
from distilvl.training.distributed import rank_zero_first
from distilvl.training.readiness import make_ready

DEFAULT_WIDTH = 256

_SOME_CAPTIONS = ("a dog",)


def ready_student(config: Config, width: int, captions: Collection[str], fabric: Fabric) -> DualEncoder:
    """The student on `fabric`'s device, its towers frozen or not; the random numbers are those after building it.

    Args:
        config: of the run.
        width: D.
        captions: of all that is learnt from; without effect on a student whose tokenizer is given.
        fabric: device, precision and processes.

    Raises:
        DistilvlError: a tower that cannot be loaded, or that cannot do what the run will ask of it.
    """
    seed_everything(config.training.seed, verbose=False)
    given = config.student.folder or config.student.text.model
    encoder = DualEncoder(build_student(config.student, width, () if given else captions))
    finished = config.student.folder is not None
    rank_zero_first(fabric, lambda: try_student(encoder, reload=not finished) if fabric.is_global_zero else None)
    encoder.to(fabric.device).freeze(*config.student.frozen)
    make_ready(encoder, config.training, fabric.world_size)
    try_gradients(encoder, fabric.autocast)
    return encoder


def try_towers(config: Config, fabric: Fabric) -> None:
    """Raise what `ready_student` would, before the teacher's width and the captions are known."""
    folder = config.student.folder
    width = load_student(folder).get_embedding_dimension() if folder else config.student.width
    ready_student(config, width or DEFAULT_WIDTH, _SOME_CAPTIONS, fabric)
