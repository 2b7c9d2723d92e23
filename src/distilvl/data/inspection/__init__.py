"""What a dataset holds, before anything is trained on it: counts, sizes, bad files, duplicates, overlap of splits."""

from distilvl.data.inspection.inspect import NEAR_BITS, inspect_dataset
from distilvl.data.inspection.report import Inspection, as_dict
from distilvl.data.inspection.text import as_text

__all__ = ["NEAR_BITS", "Inspection", "as_dict", "as_text", "inspect_dataset"]
