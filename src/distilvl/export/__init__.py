"""Students as ONNX in fp32, fp16 and int8, scored before they are handed over."""

from importlib.util import find_spec

from distilvl.errors import DistilvlError

_MISSING = [package for package in ("onnx", "onnxscript", "onnxruntime") if find_spec(package) is None]
if _MISSING:
    raise DistilvlError(f"export needs {' and '.join(_MISSING)}.", "Install it: pip install 'distilvl[export]'.")

from distilvl.export.export import Settings, export_student  # noqa: E402
from distilvl.export.measure import Export, Row  # noqa: E402

__all__ = ["Export", "Row", "Settings", "export_student"]
