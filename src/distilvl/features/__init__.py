"""The feature store: write, resume, verify, read. Knows nothing of how features are used."""

from distilvl.features.extract import ExtractReport, extract_features
from distilvl.features.importing import import_arrays
from distilvl.features.items import unique_captions, unique_images
from distilvl.features.keys import image_key, text_key
from distilvl.features.manifest import Manifest
from distilvl.features.prepare import prepare_features
from distilvl.features.store import FeatureStore, VerifyReport

__all__ = [
    "ExtractReport",
    "FeatureStore",
    "Manifest",
    "VerifyReport",
    "extract_features",
    "image_key",
    "import_arrays",
    "prepare_features",
    "text_key",
    "unique_captions",
    "unique_images",
]
