"""One pass over images and texts through frozen towers: what `training.closed_form` is solved from.

Only sums and the held-out items stay in memory, however many items there are. Which are held out is a matter of their
content, so that it is the same in every process, and copies of one image are on the same side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import LeftOut
from distilvl.data.pixels import Decoding, PixelCache, only_images, pixel_blocks
from distilvl.data.records import PairDataset, Record, UnpairedImage
from distilvl.features import FeatureStore
from distilvl.features.shards import Modality
from distilvl.io.hashes import text_key
from distilvl.io.prefetch import one_ahead
from distilvl.io.progress import progress
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.frozen import ON_CPU, traced_store
from distilvl.students.static import Parts
from distilvl.students.storage import route
from distilvl.training.closed_form import Floats, Gathered
from distilvl.training.distributed import Share, dtype_of, gather_objects, sum_arrays
from distilvl.training.ridge import RidgeSums
from distilvl.training.teacher_features import read_features

_IMAGES, _TEXTS, _BATCH = 64, 2048, 250  # at a time


@dataclass(frozen=True)
class Pass:
    """What both passes need: the student, the teacher's features, and which items are held out."""

    encoder: DualEncoder
    store: FeatureStore
    fabric: Fabric
    held_out: float  # share of the images, 0 to 1
    held_out_texts: float  # and of texts without pairs
    mirror: bool  # take each image's mirror image in as well, with the same features
    skip_bad: bool = False
    crops: Crops | None = None  # take these of each image in as well
    whole_features: bool = False  # with the features of the whole image

    @property
    def count(self) -> int:
        """How many crops of each image are read, the whole one included."""
        return 1 if self.crops is None else self.crops.count

    def of_crop(self, number: int, keys: Sequence[bytes], targets: Floats, names: Sequence[str]) -> Floats:
        """`targets` of whole images, with u^v of this crop of each where the store has it."""
        if self.crops is None or self.whole_features:
            return targets
        own = _features(self.store, "image", [self.crops.crop(key, number).key(key) for key in keys], names)
        return np.hstack([own, targets[:, own.shape[1] :]])

    def are_held_out(self, keys: Sequence[bytes], *, texts: bool = False) -> npt.NDArray[np.bool_]:
        """Whether the items with these content hashes are."""
        least = (self.held_out_texts if texts else self.held_out) * 2**64
        return np.array([int.from_bytes(key[:8], "big") < least for key in keys])


@dataclass
class _Sums:
    """A `Gathered` that is still growing."""

    fitted: RidgeSums
    rows: list[Any] = field(default_factory=list)
    mirrored: list[Floats] = field(default_factory=list)
    targets: list[Floats] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    crops: RidgeSums | None = None

    def add_crops(self, rows: Floats, targets: Floats, held: npt.NDArray[np.bool_]) -> None:
        """Rows of a crop of some images, which stand on the side of the whole ones."""
        self.crops = self.crops or RidgeSums.zeros(*self.fitted.xu.shape)
        self.fitted.add(rows[~held], targets[~held])
        self.crops.add(rows[held], targets[held])

    def add(self, views: Sequence[Any], targets: Floats, keys: Sequence[bytes], held: npt.NDArray[np.bool_]) -> None:
        """Rows of some whole items, and perhaps of their mirror images."""
        for kept, rows in zip((self.rows, self.mirrored), views, strict=False):
            self.fitted.add(rows[~held], targets[~held])
            kept.append(rows[held])
        self.targets.append(targets[held])
        self.keys += [key for key, is_held in zip(keys, held, strict=True) if is_held]

    def done(self) -> Gathered:
        join: Any = scipy.sparse.vstack if scipy.sparse.issparse(self.rows[0]) else np.concatenate
        rows = join(self.rows)
        mirrored = np.concatenate(self.mirrored) if self.mirrored else None
        return Gathered(
            self.fitted, rows.tocsr() if scipy.sparse.issparse(rows) else rows, mirrored,
            np.concatenate(self.targets), self.keys, self.crops,
        )  # fmt: skip


@dataclass(frozen=True)
class Images:
    """What the pass over the images gives."""

    gathered: Gathered
    items: Items  # those whose images could be decoded
    keys: list[bytes]  # content hash of each of these
    left_out: LeftOut  # the others


def gather_images(items: Items, run: Pass, cache: PixelCache | None = None) -> Images:
    """Pooled outputs of the image tower against u^v, and the mean of its captions' u^t beside it where there are pairs.

    Each image is read and decoded once, at most 64 of them at a time. `BadImageError` for a bad one, unless `skip_bad`.
    With `cache`, which `decode_pixels` made of `items` for this student's preprocessing, nothing is read.
    """
    sums: _Sums | None = None
    items = items if cache is None else cache.dataset
    entries: list[Record | UnpairedImage] = list(items)
    decoding = Decoding(items, run.skip_bad, "encoding images")
    blocks = one_ahead(_blocks(decoding, run)) if cache is None else _cached_blocks(cache)
    most = ON_CPU if run.fabric.device.type == "cpu" else _IMAGES
    pool = traced_store(run.encoder, dtype_of(run.fabric)) or run.encoder.pool_images
    for pixels, rows, keys in blocks:
        chosen = [entries[row] for row in rows]
        targets = _features(run.store, "image", keys, [one.image.name for one in chosen])
        if isinstance(items, PairDataset):
            targets = np.hstack([targets, _mean_of_captions(run.store, [items[row].captions for row in rows])])
        held = run.are_held_out(keys)
        for number, given in enumerate(np.split(pixels.reshape(len(keys), -1, *pixels.shape[1:]), run.count, axis=1)):
            whole = torch.from_numpy(given[:, 0]).to(run.fabric.device)
            views = [whole, whole.flip(3)] if run.mirror else [whole]
            pooled = [np.concatenate([_pooled(run, pool, part) for part in torch.split(view, most)]) for view in views]
            sums = sums or _Sums(RidgeSums.zeros(pooled[0].shape[1], targets.shape[1]))
            if number == 0:
                sums.add(pooled, targets, keys, held)
                continue
            own = run.of_crop(number, keys, targets, [one.image.name for one in chosen])
            for x in pooled:
                sums.add_crops(x, own, held)
    assert sums is not None  # `Decoding` raises where no image is left
    if cache is not None:
        return Images(sums.done(), items, cache.keys, cache.left_out)
    return Images(sums.done(), only_images(items, decoding.rows), decoding.keys, decoding.left_out)


Block: TypeAlias = tuple[npt.NDArray[np.uint8], Sequence[int], list[bytes]]


def _blocks(decoding: Decoding, run: Pass) -> Iterator[Block]:
    """Pixels of all crops of some images, their rows in the data, and their content hashes."""
    done = 0
    for pixels in pixel_blocks(decoding, run.encoder.resize, run.crops):
        yield pixels, decoding.rows[done:], decoding.keys[done:]
        done = len(decoding.keys)


def _cached_blocks(cache: PixelCache) -> Iterator[Block]:
    """The same from memory."""
    with progress("encoding images", len(cache.keys)) as ticker:
        for start in range(0, len(cache.keys), _IMAGES):
            keys = cache.keys[start : start + _IMAGES]
            yield cache.pixels[start : start + _IMAGES], range(start, start + len(keys)), keys
            ticker.advance(len(keys))


@dataclass(frozen=True)
class Found:
    """What the passes over images and over texts give."""

    images: Gathered
    texts: Gathered
    left_out: LeftOut  # images that could not be decoded


def gather(items: Items, run: Pass) -> Found:
    """Both passes."""
    seen = gather_images(items, run)
    return Found(seen.gathered, gather_texts(seen, run), seen.left_out)


def share_of_items(items: Items, share: Share) -> Items:
    """What one of several processes reads."""
    if isinstance(items, PairDataset):
        return items.only(items.records[share.rows(len(items))])
    return replace(items, images=items.images[share.rows(len(items))], texts=items.texts[share.rows(len(items.texts))])


def merged(parts: Sequence[Found]) -> Found:
    """The parts of one set of items as one."""
    left_out = LeftOut()
    for part in parts:
        left_out = left_out | part.left_out
    images, texts = [part.images for part in parts], [part.texts for part in parts]
    return Found(_together(images), _together(texts), left_out)


def _together(parts: Sequence[Gathered]) -> Gathered:
    fitted = reduce(add, [part.fitted for part in parts])
    stack: Any = scipy.sparse.vstack if scipy.sparse.issparse(parts[0].rows) else np.concatenate
    mirrored = None if parts[0].mirrored is None else np.concatenate([part.mirrored for part in parts])
    rows, targets = stack([part.rows for part in parts]), np.concatenate([part.targets for part in parts])
    crops = [part.crops for part in parts if part.crops is not None]
    return Gathered(
        fitted,
        rows,
        mirrored,
        targets,
        [key for part in parts for key in part.keys],
        reduce(add, crops) if crops else None,
    )


def joined(found: Found, fabric: Fabric) -> Found:
    """What all processes gathered together, in each of them."""
    if fabric.world_size == 1:
        return found
    for side in (found.images, found.texts):
        sum_arrays(side.fitted.parts, fabric)  # in place; what follows has the held-out items alone
    bare = RidgeSums.zeros(0, 0)
    own = replace(found, images=replace(found.images, fitted=bare), texts=replace(found.texts, fitted=bare))
    together = merged(gather_objects(own))
    images, texts = (
        replace(together.images, fitted=found.images.fitted),
        replace(together.texts, fitted=found.texts.fitted),
    )
    return replace(together, images=images, texts=texts)


@torch.no_grad()
def _pooled(run: Pass, pool: Callable[..., Tensor], *inputs: Tensor) -> Floats:
    with run.fabric.autocast():
        return pool(*inputs).float().cpu().numpy()


def _features(store: FeatureStore, modality: Modality, keys: Sequence[bytes], names: Sequence[str]) -> Floats:
    return read_features(store, modality, keys, True, names).astype(np.float32)


def _mean_of_captions(store: FeatureStore, captions: Sequence[Sequence[str]]) -> Floats:
    """mean(u^t) of each image's captions, (n, D)."""
    flat = [caption for some in captions for caption in some]
    features = _features(store, "text", [text_key(caption) for caption in flat], flat)
    starts = np.cumsum([0, *(len(some) for some in captions[:-1])])
    counts = np.array([len(some) for some in captions], dtype=np.float32)
    return (np.add.reduceat(features, starts, axis=0) / counts[:, None]).astype(np.float32)


def gather_texts(images: Images, run: Pass) -> Gathered:
    """What the text tower has of each text against u^t, with u^v of its image beside it where there are pairs.

    A transformer tower gives pooled outputs, a static one counts of what its rows are made of: `students.static.Parts`.
    """
    items, texts, sums, parts = images.items, images.items.captions, None, None
    if run.encoder.text_is_static:
        parts = Parts.of(route(run.encoder.student, "text")[0].tokenizer)
    owners = items.caption_image if isinstance(items, PairDataset) else []
    with progress("encoding texts", len(texts)) as ticker:
        for start in range(0, len(texts), _TEXTS):
            block = texts[start : start + _TEXTS]
            keys = [text_key(text) for text in block]
            targets = _features(run.store, "text", keys, block)
            if isinstance(items, PairDataset):
                keys = [images.keys[row] for row in owners[start : start + _TEXTS]]
                names = [items[row].image.name for row in owners[start : start + _TEXTS]]
                targets = np.hstack([targets, _features(run.store, "image", keys, names)])
            held = run.are_held_out(keys, texts=not isinstance(items, PairDataset))
            tokens = run.encoder.tokenize(block)
            rows = _pooled_texts(tokens, run) if parts is None else parts.counts(tokens)
            sums = sums or _Sums(RidgeSums.zeros(rows.shape[1], targets.shape[1]))
            sums.add([rows], targets, keys, held)
            ticker.advance(len(block))
    assert sums is not None  # a dataset has captions
    return sums.done()


def _pooled_texts(tokens: Sequence[Sequence[int]], run: Pass) -> Floats:
    order, found, device = np.argsort([len(row) for row in tokens], kind="stable"), [], run.fabric.device
    for start in range(0, len(order), _BATCH):
        ids, mask = run.encoder.pad([tokens[row] for row in order[start : start + _BATCH]])
        found.append(_pooled(run, run.encoder.pool_texts, ids.to(device), mask.to(device)))
    return np.concatenate(found)[np.argsort(order)]
