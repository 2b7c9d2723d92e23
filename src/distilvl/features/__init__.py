"""The feature store: write, resume, verify, read. Knows nothing of how features are used."""

from distilvl.data.items import unique_captions, unique_images
from distilvl.extraction.extract import ExtractReport, extract_features
from distilvl.extraction.importing import import_arrays, import_features
from distilvl.extraction.prepare import estimate_features, prepare_features
from distilvl.features.manifest import Manifest
from distilvl.features.merging import merge_stores
from distilvl.features.pending import StoreInfo, store_info
from distilvl.features.store import FeatureStore, VerifyReport
from distilvl.io.hashes import image_key, text_key

__all__ = [
    "ExtractReport",
    "FeatureStore",
    "Manifest",
    "StoreInfo",
    "VerifyReport",
    "estimate_features",
    "extract_features",
    "image_key",
    "import_arrays",
    "import_features",
    "merge_stores",
    "prepare_features",
    "store_info",
    "text_key",
    "unique_captions",
    "unique_images",
]
