"""A cell whose teacher is the student of another cell: born-again networks (Furlanello et al., ICML 2018, 1805.04770).

The student of generation k learns, from new weights, by the features of the student of generation k - 1 of the same
size, as that did by the teacher's.
"""

from pathlib import Path

from lightning_fabric import Fabric

from distilvl.config import Config
from distilvl.data import PairDataset
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.files import new_folder
from distilvl.io.hashes import text_key
from distilvl.students import DualEncoder, load_student
from distilvl.training.distributed import resolve_precision
from distilvl.training.materials import SharedInputs
from distilvl.training.trainer import encode_split

STORE_NAME = "embeddings"  # in the folder of a run: its student's embeddings, as a feature store


def store_of_student(run: Path, config: Config, split: str, shared: SharedInputs, accelerator: str) -> Path:
    """The feature store of the student in the folder `run`: of train, val and `split` of the data in `config`.

    Made where it is not there yet, in full precision; what frozen towers give is read from `shared`. Raises as
    `SharedInputs.materials`.
    """
    out = run / STORE_NAME
    if out.is_dir():
        return out
    fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision("fp32", accelerator))
    encoder = DualEncoder(load_student(run / "student")).to(fabric.device)
    encoder.freeze(*(name for name in ("image", "text") if getattr(config.student, name).frozen))
    dim = encoder.student.get_embedding_dimension()
    assert dim is not None  # every student has heads
    with new_folder(out) as staging:
        store = FeatureStore.create(staging, Manifest(teacher="student", revision=run.name, dim=dim))
        scored = config.inputs.scored_data
        for part, data in {"train": config.inputs.data, "val": scored, split: scored}.items():
            found = shared.materials(str(data), part, encoder, None, fabric, scored=True)
            assert isinstance(found.dataset, PairDataset)
            images, texts = encode_split(fabric, encoder, found)
            store.add("image", found.keys, images)
            store.add("text", [text_key(caption) for caption in found.dataset.captions], texts)
    return out
