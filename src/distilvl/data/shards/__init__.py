"""WebDataset shards: tar archives whose files of one name make a record, read from front to back.

The formats are those of the `webdataset` package; its reader is not used (docs/design/streaming.md says why).
"""

from distilvl.data.shards.order import EpochOrder
from distilvl.data.shards.pairs import TarImage, read_webdataset
from distilvl.data.shards.split import ShardSplit, is_webdataset, one_split, open_split

__all__ = [
    "EpochOrder",
    "ShardSplit",
    "TarImage",
    "is_webdataset",
    "one_split",
    "open_split",
    "read_webdataset",
]
