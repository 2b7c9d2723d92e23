"""What fills a feature store: a teacher's embeddings of a dataset's items, by one process, by many, or from arrays."""

from distilvl.extraction.extract import ExtractReport, estimate_features, extract_features
from distilvl.extraction.ray_engine import Cluster

__all__ = ["Cluster", "ExtractReport", "estimate_features", "extract_features"]
