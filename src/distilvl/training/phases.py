"""What comes before a run proper: the closed form, then phases, each a run of its own in a folder inside the run's.

    RUN/fitted        the student in closed form, where training.head_init is closed_form
    RUN/phases/1 ...  a phase: begins with the best weights of the one before
    RUN               begins with those of the last

Each of them continues where it was stopped, as any run, and a finished one is left as it is.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from distilvl.config import Config, StudentConfig
from distilvl.features import FeatureStore
from distilvl.recipes import phases_of
from distilvl.training.distributed import rank_zero_first
from distilvl.training.fit import fitted_start
from distilvl.training.inputs import Inputs, Splits
from distilvl.training.run_folder import RunFolder, finished_student, hold_run_folder

logger = logging.getLogger("distilvl")
RunPhase = Callable[[Config, RunFolder], object]


def go_through(
    config: Config, folder: RunFolder, store: FeatureStore | None, splits: Splits, inputs: Inputs, fabric: Fabric,
    run: RunPhase,
) -> tuple[Config, list[RunFolder]]:  # fmt: skip
    """Do, or find done, all that comes before; `config` as it goes on from there, and the folders of what came before.

    `run` trains one phase to its end in its folder. Raises `DistilvlError` as `fitted_start` and `run`.
    """
    runs: list[RunFolder] = []
    if config.training.head_init == "closed_form":
        runs.append(fitted_start(config, splits, folder, store, inputs, fabric))
    phases = phases_of(config)
    for number, phase in enumerate(phases, 1):
        logger.info("phase %d of %d", number, len(phases) + 1)
        own, place = _of_store(going_on(phase, runs), store), RunFolder(folder.path / "phases" / str(number))
        _finish(own, place, splits, fabric, run)
        runs.append(place)
    return going_on(config, runs), runs


def _finish(config: Config, place: RunFolder, splits: Splits, fabric: Fabric, run: RunPhase) -> None:
    with ExitStack() as held:
        first = fabric.is_global_zero
        rank_zero_first(fabric, lambda: hold_run_folder(place.path, config, held) if first else place)
        if finished_student(place, splits.listing) is None:
            run(config, place)
    fabric.barrier()


def going_on(config: Config, runs: list[RunFolder]) -> Config:
    """`config` as it goes on from the student of the last of the finished `runs`; as it is where there are none."""
    if not runs:
        return config
    image, text = config.student.image, config.student.text
    layers = {"frozen": image.frozen, "trainable_layers": image.trainable_layers}
    of_text = {"frozen": text.frozen, "trainable_layers": config.student.text_layers}
    student = {"folder": str(runs[-1].student), "image": layers, "text": of_text}
    training = config.training.model_copy(update={"head_init": "random"})  # a finished student has its heads
    return config.model_copy(update={"student": StudentConfig.model_validate(student), "training": training})


def _of_store(config: Config, store: FeatureStore | None) -> Config:
    features = None if store is None else str(store.path)
    return config.model_copy(
        update={"inputs": config.inputs.model_copy(update={"features": features, "teacher": None})}
    )


def stored_layers(config: Config) -> int | None:
    """How many layers of the image tower lie above what is stored of each image, in all phases: the most that learn."""
    phases = [*phases_of(config), config]
    layers = [one.student.image.trainable_layers for one in phases]
    return max((number for number in layers if number is not None), default=None)


def told(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """What a run's result says of what came before it: names of folders, RSUM on val, seconds."""
    found = []
    for one in runs:
        result = json.loads(one.result.read_text(encoding="utf-8"))
        name = Path(*one.path.parts[-2:]) if one.path.parent.name == "phases" else Path(one.path.name)
        rsum = result["val"]["rsum"] if "val" in result else None
        found.append({"folder": name.as_posix(), "rsum": rsum, "seconds": result["seconds"]})
    return found
