"""Use an exported student: NumPy, onnxruntime, tokenizers and Pillow; PyTorch is not imported.

from distilvl.runtime import Runtime, decode_image

student = Runtime.load("exported")
student.encode_texts(["a dog on a beach"])
"""

from distilvl.pictures import decode_image
from distilvl.runtime.manifest import Manifest, is_export, read_manifest
from distilvl.runtime.runtime import Runtime

__all__ = ["Manifest", "Runtime", "decode_image", "is_export", "read_manifest"]
