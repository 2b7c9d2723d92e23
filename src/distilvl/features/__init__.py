"""The feature store: write, resume, verify, merge, read. Knows nothing of who makes features, or how they are used."""

from distilvl.features.ensemble import EnsembleStore
from distilvl.features.manifest import Manifest
from distilvl.features.merging import merge_stores
from distilvl.features.pending import StoreInfo, store_info
from distilvl.features.store import FeatureStore, VerifyReport
from distilvl.io.hashes import image_key, text_key

__all__ = [
    "EnsembleStore",
    "FeatureStore",
    "Manifest",
    "StoreInfo",
    "VerifyReport",
    "image_key",
    "merge_stores",
    "store_info",
    "text_key",
]
