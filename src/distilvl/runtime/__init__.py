"""Use an exported student: NumPy, onnxruntime, tokenizers and Pillow; PyTorch is not imported.

from distilvl.runtime import Runtime, decode_image

student = Runtime.load("exported")
student.encode_texts(["a dog on a beach"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distilvl.runtime.manifest import Manifest, is_export, read_manifest
from distilvl.runtime.runtime import Runtime

if TYPE_CHECKING:
    from distilvl.data.images import decode_image

__all__ = ["Manifest", "Runtime", "decode_image", "is_export", "read_manifest"]


def __getattr__(name: str) -> Any:
    if name != "decode_image":
        raise AttributeError(f"module 'distilvl.runtime' has no attribute {name!r}")
    # The package that it is in has readers of data sets, too, whose imports an application may not want.
    from distilvl.data.images import decode_image

    return decode_image
