"""WebDataset shards: tar archives whose files of one name make a record, read from front to back."""

from distilvl.data.shards.order import EpochOrder, ShardSplit, is_webdataset, one_split, open_split
from distilvl.data.shards.pairs import TarImage, read_webdataset

__all__ = ["EpochOrder", "ShardSplit", "TarImage", "is_webdataset", "one_split", "open_split", "read_webdataset"]
