"""The sample that `experiments.towers` scores candidates on, and what candidates have in common: pixels and towers."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lightning_fabric import Fabric

from distilvl.config import FitConfig, StaticTextConfig
from distilvl.data.pixels import PixelCache, decode_pixels
from distilvl.data.records import PairDataset
from distilvl.data.shards import one_split
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import CrossScores
from distilvl.evaluation.cost import StudentEncoder, milliseconds
from distilvl.evaluation.score import Score, score
from distilvl.features import FeatureStore
from distilvl.io.hashes import text_key
from distilvl.pictures import decode_image
from distilvl.students import build_student
from distilvl.training.closed_form import Choice, Gallery
from distilvl.training.distributed import resolve_precision, start_fabric
from distilvl.training.gather import Images, Pass, gather_images, gather_texts
from distilvl.training.inputs import Inputs
from distilvl.training.solve import Towers, choose_texts, frozen_towers, held_out_share, solve_images
from distilvl.training.teacher_features import read_features

LEAST = 80  # images of a sample
_HELD_OUT = 0.25
_TIMED = 8  # pictures and captions
_MORE_RIDGES = [30.0, 100.0]  # fewer items need less of a penalty
_Found = TypeVar("_Found")


class SampleError(DistilvlError):
    """What is wrong with the data or the store, not with a candidate."""


@dataclass(frozen=True)
class Row:
    """A candidate, scored on the held-out items."""

    name: str
    student: Score  # its images with its texts
    cross: CrossScores
    parameters: int  # of the whole student
    image_ms: float  # milliseconds of one picture, on the CPU
    text_ms: float  # of one caption
    fit_seconds: float  # about what `distilvl fit` of all training data would take, on this device
    chosen: dict[str, Choice]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        chosen = {side: choice.as_dict() for side, choice in self.chosen.items()}
        times = {"image_ms": self.image_ms, "text_ms": self.text_ms, "fit_seconds": self.fit_seconds}
        rounded = {key: round(value, 2) for key, value in times.items()}
        return {"name": self.name, "rsum": self.student.rsum, "student": self.student.as_dict(), **self.cross.as_dict(),
                "parameters": self.parameters, **rounded, "chosen": chosen}  # fmt: skip


@dataclass
class Sample:
    """Some training images with their captions, and what was computed of them last."""

    items: PairDataset
    captions: list[str]  # of all training images, of which vocabularies are made
    of: int  # training images
    store: FeatureStore
    fabric: Fabric
    skip_bad: bool
    _gallery: Gallery | None = None
    _pixels: tuple[str, PixelCache, float] | None = None  # by their preprocessing, and the seconds it took
    _images: tuple[str, Images, float] | None = None  # by their tower
    _texts: dict[str, tuple[Choice, float, float]] = field(default_factory=dict)  # seconds to encode, to solve

    @classmethod
    def open(cls, data: str | Path | PairDataset, features: str | Path | FeatureStore, sample: int, skip_bad: bool,
             device: str) -> "Sample":  # fmt: skip
        """So many training images, drawn by a hash of their ids; `DistilvlError` as of `compare_towers`."""
        if sample < LEAST:
            raise DistilvlError(f"a sample of {sample} images is too small to compare on.", f"Take {LEAST} or more.")
        inputs = Inputs(skip_bad)
        named = inputs.name_data(data, "data")
        train = inputs.split(one_split(str(named), "train"), "train")
        if not isinstance(train, PairDataset):
            raise DistilvlError(f"{train.name} has no pairs to score candidates on.", "Name a dataset of pairs.")
        store = features if isinstance(features, FeatureStore) else FeatureStore.open(Path(features))
        drawn = sorted(train.records, key=lambda one: hashlib.sha256(one.image_id.encode()).digest())[:sample]
        fabric = start_fabric(device, resolve_precision("auto", device))
        return cls(train.only(drawn), list(train.captions), len(train), store, fabric, skip_bad)

    @property
    def teacher(self) -> Score:
        """Of the teacher's stored features of the held-out items, once a candidate was scored."""
        gallery = self._gallery
        assert gallery is not None
        return score(gallery.images, gallery.texts, _owner(gallery))

    def row(self, name: str, config: FitConfig) -> Row:
        """Score a candidate; `SampleError` for bad images or missing features, another one for what it cannot do."""
        fit = config.fit
        narrow = fit.model_copy(update={"mirror": False, "ridges": [*_MORE_RIDGES, *fit.ridges]})
        towers = frozen_towers(
            config.model_copy(update={"fit": narrow}), self.store.manifest.dim, self.captions, self.fabric
        )
        share = held_out_share(len(self.items), towers.config, _HELD_OUT)
        run = Pass(towers.encoder, self.store, self.fabric, share, share, mirror=False)
        cache, decoding = self._decoded(towers)
        images, encoding = self._encoded(towers, run, cache)
        text, text_encoding, text_solving = self._chosen_texts(towers, run, images)
        gallery = self._gallery
        assert gallery is not None  # the texts' choice needed it
        (_, image), solving = _timed(lambda: solve_images(towers, images.gathered, gallery, text.embeddings))
        parameters, image_ms, text_ms = self._cost(towers.with_stages_of(image), cache)
        views, times = (2 if fit.mirror else 1), self.of / len(self.items)
        seconds = times * (decoding + views * encoding + text_encoding) + text_solving + solving
        owner = _owner(gallery)
        cross = CrossScores(
            score(image.embeddings, gallery.texts, owner), score(gallery.images, text.embeddings, owner)
        )
        student = score(image.embeddings, text.embeddings, owner)
        return Row(name, student, cross, parameters, image_ms, text_ms, seconds, {"image": image, "text": text})

    def _decoded(self, towers: Towers) -> tuple[PixelCache, float]:
        """Pixels for these towers, all with features, and the seconds they took."""
        key = towers.encoder.preprocessing
        if self._pixels is None or self._pixels[0] != key:
            self._pixels = None  # before the next ones take as much memory
            try:
                cache, seconds = _timed(
                    lambda: decode_pixels(self.items, towers.encoder.resize, skip_bad=self.skip_bad)
                )
                if self._gallery is None:
                    captions = cache.dataset.captions
                    read_features(self.store, "image", cache.keys, True, [one.image.name for one in cache.dataset])
                    read_features(self.store, "text", [text_key(one) for one in captions], True, captions)
            except DistilvlError as error:
                raise SampleError(str(error)) from error
            self._pixels = key, cache, seconds
        return self._pixels[1], self._pixels[2]

    def _encoded(self, towers: Towers, run: Pass, cache: PixelCache) -> tuple[Images, float]:
        """What the image tower makes of the pixels, and the seconds."""
        key = _identity(towers, "image") + towers.encoder.preprocessing
        if self._images is None or self._images[0] != key:
            self._images = None
            self._images = key, *_timed(lambda: gather_images(self.items, run, cache))
        return self._images[1], self._images[2]

    def _chosen_texts(self, towers: Towers, run: Pass, images: Images) -> tuple[Choice, float, float]:
        """The text side, which does not depend on the image tower, and the seconds of both steps."""
        key = _identity(towers, "text")
        if key not in self._texts:
            texts, encoding = _timed(lambda: gather_texts(images, run))
            gallery = self._gallery or Gallery.of(images.gathered, texts, self.store.manifest.dim)
            self._gallery = gallery
            self._texts[key] = *_timed(lambda: choose_texts(towers, texts, gallery)), encoding
        choice, solving, encoding = self._texts[key]
        return choice, encoding, solving

    def _cost(self, config: FitConfig, cache: PixelCache) -> tuple[int, float, float]:
        """Parameters of the student, and milliseconds of a picture and of a caption on the CPU, one at a time."""
        assert isinstance(cache.dataset, PairDataset)
        encoder = StudentEncoder(build_student(config.student, self.store.manifest.dim, self.captions))
        some = cache.dataset.records[:_TIMED]
        pictures = [decode_image(one.image.read(), one.image.name) for one in some]
        image_ms, text_ms = milliseconds({"": encoder}, pictures, [one.captions[0] for one in some])[""]
        return encoder.num_parameters, image_ms, text_ms


def _owner(gallery: Gallery) -> Any:
    assert gallery.owner is not None  # a sample has pairs
    return gallery.owner


def _identity(towers: Towers, side: str) -> str:
    """Equal for towers that give the same: what the config says, and the weights, but for a table, which is solved."""
    config = getattr(towers.config.student, side)
    weights = "" if isinstance(config, StaticTextConfig) else towers.encoder.tower_fingerprint(side)
    return f"{config.model_dump_json()} {weights}"


def _timed(compute: Callable[[], _Found]) -> tuple[_Found, float]:
    """What it gives, and the seconds it took."""
    started = time.monotonic()
    return compute(), time.monotonic() - started
