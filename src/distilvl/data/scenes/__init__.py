"""`scenes`: a small deterministic world, drawn with Pillow, that needs no download."""

from distilvl.data.scenes.dataset import SceneImage, scenes_dataset

__all__ = ["SceneImage", "scenes_dataset"]
