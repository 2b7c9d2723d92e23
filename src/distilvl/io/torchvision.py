"""PyPI's torchvision beside a CPU build of torch: it fails to import for two operators of object detection.

timm imports torchvision, and transformers does as soon as it is installed. Its compiled part, made for the CUDA build
of torch, is not loaded beside another one, and then its Python part stops at `operator torchvision::nms does not
exist`. Nothing that encodes pictures calls these operators; that they are declared is enough.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_FAULT = "operator torchvision::nms does not exist"
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # a library's operators are gone when it is


class _Loader(SourceFileLoader):
    """Runs torchvision, a second time with its operators declared where the first time fails for want of them."""

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except RuntimeError as error:
            if _FAULT not in str(error):
                raise
            _declare()
            super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "torchvision" else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def mend_torchvision() -> None:
    """Have a torchvision that is imported from now on declare the operators it lacks, if and only if it fails so."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _declare() -> None:
    from torch.library import Library

    library: Any = Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        library.define(f"{name}{_SCHEMA}")
    _declared.append(library)
