"""What an exported student takes: pixels of pictures, as the student's processor makes them, and token ids of texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from distilvl.errors import DistilvlError
from distilvl.pictures import upright_rgb

Step: TypeAlias = Mapping[str, Any]

# Pillow's filters by the names used in steps: nearest, box, bilinear, hamming, bicubic, lanczos.
RESAMPLE = {resample.name.lower(): resample for resample in Image.Resampling}
_SIDES: dict[str, tuple[str, ...]] = {
    "resize": ("height", "width"), "resize_shorter": ("side",), "center_crop": ("height", "width"),
    "reverse_channels": (),
}  # fmt: skip


def check_steps(steps: Any) -> tuple[Step, ...]:
    """The steps as they stand in a manifest; `ValueError`, `TypeError` or `KeyError` for another."""
    for step in steps:
        name = step["step"]
        if name not in _SIDES:
            raise ValueError(f"its step {name!r} is unknown")
        if any(not isinstance(step[field], int) or step[field] < 1 for field in _SIDES[name]):
            raise ValueError(f"its step {name} has a side that is not a number of pixels")
        if name.startswith("resize") and step["resample"] not in RESAMPLE:
            raise ValueError(f"its filter {step['resample']!r} is unknown")
    return tuple(steps)


def to_pixels(images: Sequence[Image.Image], steps: Sequence[Step], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pictures of any mode (see `distilvl.pictures.upright_rgb`) to (n, 3, H, W) uint8, by steps of `check_steps`.

    `DistilvlError` for an item that is no picture or of unknown range, or steps that lead to another `size`, (H, W).
    """
    pixels = np.empty((len(images), 3, *size), dtype=np.uint8)
    for k, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise DistilvlError(f"item {k} is no picture but a {type(image).__name__}.", "Give PIL images.")
        picture = upright_rgb(image, f"item {k}")
        for step in steps:
            picture = _apply(step, picture)
        if picture.size != (size[1], size[0]):
            had, found, wanted = (f"{width} x {height}" for width, height in (image.size, picture.size, size[::-1]))
            what = f"the steps lead from {had} pixels to {found}, not {wanted}."
            raise DistilvlError(what, "Export the student again.")
        pixels[k] = np.asarray(picture).transpose(2, 0, 1)
    return pixels


def _apply(step: Step, image: Image.Image) -> Image.Image:
    name = step["step"]
    if name == "resize":
        return image.resize((step["width"], step["height"]), RESAMPLE[step["resample"]])
    if name == "resize_shorter":
        shorter, longer = sorted(image.size)
        long_side = int(step["side"] * longer / shorter)
        size = (step["side"], long_side) if image.width <= image.height else (long_side, step["side"])
        return image.resize(size, RESAMPLE[step["resample"]])
    if name == "center_crop":
        return _center_crop(image, step["height"], step["width"])
    return Image.merge("RGB", image.split()[::-1])


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle `height` x `width`; where the picture is smaller, black is added first, the odd pixel at the start."""
    whole_height, whole_width = max(height, image.height), max(width, image.width)
    # As the processors of transformers count: rounded up for what is added, down for what is cut off.
    above, before = -(-(whole_height - image.height) // 2), -(-(whole_width - image.width) // 2)
    top, left = (image.height - height) // 2 + above, (image.width - width) // 2 + before
    if (whole_width, whole_height) != image.size:
        canvas = Image.new("RGB", (whole_width, whole_height))
        canvas.paste(image, (before, above))
        image = canvas
    return image.crop((left, top, left + width, top + height))


Ids = npt.NDArray[np.int64]


class TextTokenizer:
    """Token ids as the student's own tokenizer gives them, cut to `max_length`; short rows are filled with `pad_id`."""

    def __init__(self, path: Path, max_length: int, pad_id: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise DistilvlError(f"{path} is not a tokenizer: {error}.", "Export the student again.") from error
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        self._pad_id = pad_id

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special tokens included; `DistilvlError` for one with half a surrogate pair."""
        for k, text in enumerate(texts):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise DistilvlError(f"text {k} is not valid Unicode.", "Remove the lone surrogates.") from error
        # Of an empty text a static tower has the mark before each text, which the library makes of a space at least.
        encodings = self._tokenizer.encode_batch(list(texts))
        return [encoding.ids or self._tokenizer.encode(" ").ids for encoding in encodings]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
        """`input_ids` and `attention_mask`, both (n, longest) int64."""
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for k, row in enumerate(rows):
            ids[k, : len(row)] = row
            mask[k, : len(row)] = 1
        return ids, mask
