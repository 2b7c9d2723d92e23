"""The feature store: write, resume, verify, merge, read. Knows nothing of who makes embeddings, or who uses them."""

from distilvl.features.ensemble import EnsembleStore
from distilvl.features.manifest import Manifest
from distilvl.features.store import FeatureStore, VerifyReport
from distilvl.features.upkeep import StoreInfo, merge_stores, store_info
from distilvl.io.hashes import image_key, text_key

__all__ = [
    "EnsembleStore", "FeatureStore", "Manifest", "StoreInfo", "VerifyReport", "image_key", "merge_stores", "store_info",
    "text_key",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in ("ExtractReport", "estimate_features", "extract_features"):
        raise ImportError(f"{name} is in distilvl.extraction now; distilvl.extract_features is the usual name.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
