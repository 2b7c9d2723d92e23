"""A perceptual hash and a thumbnail: what tells whether two files show the same picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

THUMBNAIL = 8
"""Edge of the thumbnails, in pixels."""

_EDGE, _LOW = 32, 8


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly the same when a picture is scaled, compressed again or made brighter (pHash).

    The grey picture at 32 x 32, its two-dimensional discrete cosine transform, the 8 x 8 lowest frequencies; a bit
    says whether a coefficient lies above their median (Zauner, Implementation and Benchmarking of Perceptual Image
    Hash Functions, 2010). Row by row, the first coefficient in the highest bit; equal to `imagehash.phash`, without
    that package's dependency on PyWavelets.

    Args:
        image: RGB, of any size.
    """
    grey = np.asarray(image.convert("L").resize((_EDGE, _EDGE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = dctn(grey, type=2)[:_LOW, :_LOW]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The picture at 8 x 8 pixels, (8, 8, 3): colours and flat areas, to which the hash is blind."""
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.uint8)
