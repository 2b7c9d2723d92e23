"""Datasets: records, readers, pixels, batches. Knows nothing of teachers and losses."""

from distilvl.data.loading import load_dataset
from distilvl.data.records import FileImage, ImageSource, PairDataset, Record

__all__ = ["FileImage", "ImageSource", "PairDataset", "Record", "load_dataset"]
