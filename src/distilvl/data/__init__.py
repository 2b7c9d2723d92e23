"""Datasets: records, readers, pixels, batches. Knows nothing of teachers and losses."""

from distilvl.data.folders import read_unpaired
from distilvl.data.loading import load_any, load_dataset
from distilvl.data.records import FileImage, ImageSource, PairDataset, Record, UnpairedDataset, UnpairedImage

__all__ = [
    "FileImage", "ImageSource", "PairDataset", "Record", "UnpairedDataset", "UnpairedImage",
    "load_any", "load_dataset", "read_unpaired",
]  # fmt: skip
