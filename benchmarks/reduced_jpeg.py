"""How far `training.reduced_jpeg` moves the pixels, and what it saves.

Large JPEGs are made of small photographs in two ways: four photographs enlarged fourfold, with grain, which is smooth
as a large photograph is; and 64 photographs side by side, which has more detail than any. Both are 1280 x 1280, of
quality 90. They are decoded whole and reduced, resized by the bicubic filter, and compared.

    python benchmarks/reduced_jpeg.py --images /data/flickr8k/images
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.folders import image_files
from distilvl.pictures import decode_image

SIDE, COUNT, GRAIN, QUALITY = 1280, 12, 6.0, 90
Pixels = npt.NDArray[np.float64]


def main() -> None:
    """Print one row for each kind of image and size of the student's input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    folder: Path = parser.parse_args().images
    names = image_files(folder)
    print("| image | size | mean difference of 255 | 99 % are below | largest | time |\n|---|---|---|---|---|---|")
    for kind, a_side in (("smooth", 2), ("detailed", 8)):
        random = np.random.default_rng(0)
        images = [mosaic([folder / name for name in random.choice(names, a_side**2)], a_side) for _ in range(COUNT)]
        for size in (112, 224):
            whole, slow = decoded(images, size, None)
            reduced, fast = decoded(images, size, 2 * size)
            difference = np.abs(whole - reduced)
            print(f"| {kind} | {size} | {difference.mean():.2f} | {np.quantile(difference, 0.99):.0f} "
                  f"| {difference.max():.0f} | {fast / slow:.2f} of whole |")  # fmt: skip


def mosaic(paths: list[Path], a_side: int) -> bytes:
    """A JPEG of `a_side` x `a_side` photographs."""
    canvas, side = Image.new("RGB", (SIDE, SIDE)), SIDE // a_side
    for k, path in enumerate(paths):
        tile = decode_image(path.read_bytes(), path.name).resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(tile, (side * (k % a_side), side * (k // a_side)))
    grain = np.random.default_rng(1).normal(0, GRAIN, (SIDE, SIDE, 1))
    buffer = io.BytesIO()
    rows = np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(rows).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def decoded(images: list[bytes], size: int, at_least: int | None) -> tuple[Pixels, float]:
    """Pixels (n, size, size, 3), and seconds of the processor."""
    started = time.process_time()
    square = (size, size)
    rows = [decode_image(data, "image", at_least).resize(square, Image.Resampling.BICUBIC) for data in images]
    return np.stack([np.asarray(row, dtype=np.float64) for row in rows]), time.process_time() - started


if __name__ == "__main__":
    main()
