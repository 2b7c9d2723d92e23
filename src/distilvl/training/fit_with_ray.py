"""The pass of `distilvl fit` by workers of a Ray cluster: each reads its share of the items, and sends back its sums.

They share the disk: the student before it is fitted lies in the run folder, the features in their store. A worker that
dies is replaced by Ray, and its share read again.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from distilvl.data.crops import Items
from distilvl.extraction.ray_engine import Cluster, connected
from distilvl.features import FeatureStore
from distilvl.io.progress import progress
from distilvl.pictures.limits import max_pixels, set_max_pixels
from distilvl.students import load_student, save_student
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.distributed import Share
from distilvl.training.gather import Found, Pass, gather, merged, share_of_items

_TOWERS = "towers"  # the folder in the run's


def gather_with_ray(cluster: Cluster, items: Items, run: Pass, scratch: Path) -> Found:
    """What `gather` gives of all items, by the workers of `cluster`; `scratch` is a folder that they all see.

    `DistilvlError` where there is no cluster, or as `gather`.
    """
    folder = (scratch / _TOWERS).resolve()
    save_student(run.encoder.student, folder)
    own = ("held_out", "held_out_texts", "mirror", "skip_bad", "crops", "whole_features")
    settings = {name: getattr(run, name) for name in own}
    settings["precision"] = run.fabric.strategy.precision.precision
    with connected(cluster) as (ray, share):
        task = ray.remote(_part).options(num_cpus=share.cpus, num_gpus=share.gpus)
        count = min(share.workers, len(items))
        given = str(folder), str(run.store.path.resolve()), settings, str(Path.cwd()), max_pixels()
        waiting = [task.remote(share_of_items(items, Share(number, count)), *given) for number in range(count)]
        number_of = {reference: number for number, reference in enumerate(waiting)}
        parts: dict[int, Found] = {}
        with progress("reading on the cluster", len(items)) as ticker:
            while waiting:
                (done,), waiting = ray.wait(waiting, num_returns=1)
                parts[number_of[done]] = _result(ray, done)
                ticker.advance(len(share_of_items(items, Share(number_of[done], count))))
    return merged([parts[number] for number in sorted(parts)])


def _result(ray: Any, reference: Any) -> Found:
    try:
        return ray.get(reference)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        raise error.cause if error.cause is not None else error from error


def _part(items: Items, towers: str, store: str, settings: Mapping[str, Any], cwd: str, pixels: int) -> Found:
    """In a worker: `gather` of its share."""
    os.chdir(cwd)
    set_max_pixels(pixels)
    how = dict(settings)
    fabric = Fabric(accelerator="auto", devices=1, precision=how.pop("precision"))
    encoder = DualEncoder(load_student(towers))
    encoder.to(fabric.device).freeze("image", "text")
    return gather(items, Pass(encoder, FeatureStore.open(store), fabric, **how))
