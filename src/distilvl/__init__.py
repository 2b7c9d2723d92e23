"""distilvl: distil any big vision-language model into a small image-text model of your own.

import distilvl

student = distilvl.train(teacher="demo", data="scenes", student="demo", recipe="demo", out="runs/mine")
student.encode(["a red circle above a blue square"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from distilvl._version import __version__
from distilvl.errors import DistilvlError
from distilvl.io.torchvision import mend_torchvision

if TYPE_CHECKING:
    from distilvl.data import load_dataset
    from distilvl.evaluation import score
    from distilvl.evaluation.evaluate import evaluate
    from distilvl.export import export_student
    from distilvl.extraction import extract_features
    from distilvl.features import FeatureStore
    from distilvl.models import load_teacher
    from distilvl.search import Index
    from distilvl.students import build_student
    from distilvl.training.fit import fit
    from distilvl.training.train import train

__all__ = [
    "DistilvlError", "FeatureStore", "Index", "__version__", "build_student", "evaluate", "export_student",
    "extract_features", "fit", "load_dataset", "load_teacher", "score", "train",
]  # fmt: skip

mend_torchvision()  # it must come before the first import of transformers

# Names and where they live; imported on first use, since torch takes seconds to load.
_LAZY = {
    "FeatureStore": "distilvl.features",
    "Index": "distilvl.search",
    "build_student": "distilvl.students",
    "evaluate": "distilvl.evaluation.evaluate",
    "export_student": "distilvl.export",
    "extract_features": "distilvl.extraction",
    "fit": "distilvl.training.fit",
    "load_dataset": "distilvl.data",
    "load_teacher": "distilvl.models",
    "score": "distilvl.evaluation",
    "train": "distilvl.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'distilvl' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
