"""`scenes`: a small deterministic world, drawn with Pillow, that needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from distilvl.data.records import PairDataset, Record
from distilvl.data.scenes.captions import captions, negative_caption
from distilvl.data.scenes.world import Scene, Signature, draw_scene, ppm_bytes, sample_scene


@dataclass(frozen=True, slots=True)
class SceneImage:
    """The picture of a scene, drawn anew at each reading; equal scenes and sizes give equal bytes."""

    name: str
    scene: Scene
    size: int

    def read(self) -> bytes:
        """Binary PPM of `size` x `size` pixels."""
        return ppm_bytes(draw_scene(self.scene, self.size))


def scenes_dataset(
    train: int = 4000, val: int = 500, test: int = 1000, seed: int = 0, size: int = 64, hard_negatives: bool = True
) -> PairDataset:
    """The embedded dataset: `train` + `val` + `test` different scenes with five captions each.

    Args:
        train, val, test: images of each split; no scene occurs twice, in whatever split.
        seed: another seed is another world of the same kind.
        size: side of the square images, pixels.
        hard_negatives: give each record of val and test a wrong caption for each true one, used by scoring.
    """
    seen: set[Signature] = set()
    # The test split comes first, so that it stays the same however many training scenes are asked for.
    counts = {"test": test, "val": val, "train": train}
    records = {
        split: [_record(f"{seed}/{split}/{index:06d}", split, size, seen, hard_negatives) for index in range(count)]
        for split, count in counts.items()
    }
    return PairDataset("scenes", tuple(records["train"] + records["val"] + records["test"]))


def _record(key: str, split: str, size: int, seen: set[Signature], hard_negatives: bool) -> Record:
    scene = _new_scene(key, seen)
    texts = captions(scene, key)
    wrong: tuple[str, ...] = ()
    if hard_negatives and split != "train":
        wrong = tuple(negative_caption(scene, key, style) for style in range(len(texts)))
    name = f"scenes/{key}"
    return Record(name, SceneImage(name, scene, size), texts, split, hard_negatives=wrong)


def _new_scene(key: str, seen: set[Signature]) -> Scene:
    rng = Random(key)
    while (scene := sample_scene(rng)).signature in seen:
        pass
    seen.add(scene.signature)
    return scene


__all__ = ["SceneImage", "scenes_dataset"]
