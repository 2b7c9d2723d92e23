"""Students as ONNX in fp32, fp16 and int8, scored before they are handed over."""

from distilvl.errors import require

require("onnx", "onnxscript", "onnxruntime", extra="export", why="export")

from distilvl.export.export import Settings, export_student  # noqa: E402
from distilvl.export.measure import Export, Row  # noqa: E402

__all__ = ["Export", "Row", "Settings", "export_student"]
