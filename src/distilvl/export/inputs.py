"""What stands before the towers, in a form that needs neither PyTorch nor transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.runtime.inputs import RESAMPLE, Step, TextTokenizer, check_steps, to_pixels
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.storage import max_length, route

_REMEDY = "Use a tower whose image processor resizes, crops and normalises only."
_SIZES = ((97, 61), (40, 130), (33, 33), (7, 9), (300, 200))  # of the pictures on which both are compared
_WARPED_FROM = 384  # ConvNeXT's processor does not crop from this size on
_TEXTS = ("", "a dog", "A Dog, running!  ", "naïve café — 東京 🐕", "x" * 300, " ".join(["word"] * 200))


def image_steps(encoder: DualEncoder) -> tuple[Step, ...]:
    """The resizing and cropping of the student's image processor as steps of `distilvl.runtime.inputs`.

    `DistilvlError` for a processor that does something else, or whose pixels or normalisation differ from the steps'.
    """
    processor = route(encoder.student, "image")[0].processor
    steps = check_steps([*_resizing(processor), *_cropping(processor)])
    pictures = _pictures()
    expected, given = encoder.resize(pictures), to_pixels(pictures, steps, encoder.image_size)
    # torchvision's resizing, which transformers prefers where it is installed, rounds differently from Pillow's.
    allowed = 1.0 if getattr(processor, "backend", "pil") == "torchvision" else 0.0
    it = f"the image processor {type(processor).__name__}"
    if np.abs(expected.astype(int) - given.astype(int)).mean() > allowed:
        raise DistilvlError(f"{it} cannot be exported exactly.", _REMEDY)
    # It must do what the graph does after resizing: one scale and one shift a channel.
    whole = np.asarray(processor(pictures, return_tensors="np")["pixel_values"])
    mean, std = encoder.mean.cpu().numpy(), encoder.std.cpu().numpy()
    if np.abs((expected - mean) / std - whole).max() > 1e-3:
        raise DistilvlError(f"{it} normalises in a way that cannot be exported.", _REMEDY)
    return steps


def save_tokenizer(encoder: DualEncoder, path: Path, captions: Sequence[str]) -> tuple[int, int]:
    """Write the student's tokenizer as `tokenizer.json`; its longest text in tokens, and the id it pads with.

    `DistilvlError` if that gives other ids of `captions` and some awkward texts on its own.
    """
    tokenizer = route(encoder.student, "text")[0].tokenizer
    fast = tokenizer if encoder.text_is_static else getattr(tokenizer, "backend_tokenizer", None)
    it = f"the tokenizer {type(tokenizer).__name__}"
    if fast is None:
        raise DistilvlError(f"{it} has no tokenizer.json.", "Use a text tower with a fast tokenizer.")
    longest, pad_id = max_length(encoder.student), int(getattr(tokenizer, "pad_token_id", None) or 0)
    path.write_text(fast.to_str(), encoding="utf-8")
    written = TextTokenizer(path, longest, pad_id)
    texts = [*_TEXTS, *captions]
    if written.rows(texts) != [list(row) for row in encoder.tokenize(texts)]:
        raise DistilvlError(f"{it} does more than its tokenizer.json says.", "Use another text tower.")
    return longest, pad_id


def _resizing(processor: Any) -> list[dict[str, Any]]:
    if not getattr(processor, "do_resize", False):
        raise DistilvlError("the student's image processor does not resize.", _REMEDY)
    names = {int(value): name for name, value in RESAMPLE.items()}
    size, resample = processor.size, names[int(processor.resample)]
    height, width, shorter = (_side(size, side) for side in ("height", "width", "shortest_edge"))
    if height and width:
        return [{"step": "resize", "height": height, "width": width, "resample": resample}]
    if not shorter or _side(size, "longest_edge"):
        raise DistilvlError(f"images of size {size} cannot be exported.", _REMEDY)
    crop_pct = getattr(processor, "crop_pct", None)
    if crop_pct is None:
        return [{"step": "resize_shorter", "side": shorter, "resample": resample}]
    square = {"height": shorter, "width": shorter}
    if shorter >= _WARPED_FROM:
        return [{"step": "resize", **square, "resample": resample}]
    larger = {"step": "resize_shorter", "side": int(shorter / crop_pct), "resample": resample}
    return [larger, {"step": "center_crop", **square}]


def _cropping(processor: Any) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if getattr(processor, "do_center_crop", None):
        size = processor.crop_size
        steps.append({"step": "center_crop", "height": _side(size, "height"), "width": _side(size, "width")})
    if getattr(processor, "do_flip_channel_order", None):
        steps.append({"step": "reverse_channels"})
    return steps


def _side(size: Any, name: str) -> int | None:
    value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if value is None else int(value)


def _pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in _SIZES]
