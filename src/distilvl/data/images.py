"""Encoded bytes to pixels."""

from __future__ import annotations

import io
import struct
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from distilvl.errors import BadImageError

_REMEDY = "Replace the file, or pass --skip-bad to leave it out."


def decode_image(data: bytes, name: str) -> Image.Image:
    """The RGB picture in `data`, upright (EXIF orientation applied) and fully decoded.

    Args:
        data: an encoded image: JPEG, PNG, PPM or anything else Pillow reads.
        name: what an error message calls it.

    Raises:
        BadImageError: truncated, not an image, or so large that decoding it could exhaust the memory.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns between one and two times its pixel limit; for a data set both are a bad file.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name} is not an image.", _REMEDY) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"{name} has too many pixels to decode safely.", _REMEDY) from error
    # What the format plugins raise for damaged bytes; OSError is the usual one ("image file is truncated").
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise BadImageError(f"cannot decode image {name}: {_one_line(error)}.", _REMEDY) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
