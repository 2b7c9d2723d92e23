"""Datasets: records, readers, pixels, batches. Knows nothing of teachers and losses."""

from distilvl.data.loading import load_any, load_dataset
from distilvl.data.records import FileImage, ImageSource, PairDataset, Record
from distilvl.data.unpaired import UnpairedDataset, UnpairedImage, read_unpaired

__all__ = [
    "FileImage",
    "ImageSource",
    "PairDataset",
    "Record",
    "UnpairedDataset",
    "UnpairedImage",
    "load_any",
    "load_dataset",
    "read_unpaired",
]
