"""Where the batches of a run come from: one file a source behind one protocol."""

from distilvl.training.sources.alternating import AlternatingSource
from distilvl.training.sources.base import BatchSource
from distilvl.training.sources.pairs import PairSource
from distilvl.training.sources.stream import StreamSource
from distilvl.training.sources.unpaired import UnpairedSource

__all__ = ["AlternatingSource", "BatchSource", "PairSource", "StreamSource", "UnpairedSource"]
