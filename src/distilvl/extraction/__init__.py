"""What fills a feature store: a teacher's embeddings of a dataset's items, by one process, by many, or from arrays."""

from distilvl.extraction.extract import ExtractReport, extract_features
from distilvl.extraction.importing import import_arrays, import_features
from distilvl.extraction.prepare import estimate_features, prepare_features

__all__ = [
    "ExtractReport",
    "estimate_features",
    "extract_features",
    "import_arrays",
    "import_features",
    "prepare_features",
]
