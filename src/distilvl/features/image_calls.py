"""Images on their way to a teacher: read and decoded in a thread, call by call, while it looks at those before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from distilvl.data.left_out import NOT_DECODED
from distilvl.data.records import ImageSource
from distilvl.errors import BadImageError, DistilvlError
from distilvl.features.keys import image_key
from distilvl.features.views import ViewedImage
from distilvl.pictures import decode_image

# What one call of the teacher may hold: enough for any batch, few enough for a lively progress bar, and of
# large pictures no more than 0.75 GB of RGB. Calls never cross a shard, so a resumed run makes the same ones.
IMAGES_A_CALL = 128
PIXELS_A_CALL = 1 << 28

T = TypeVar("T")


@dataclass
class ImageCall:
    """What a teacher is shown at once.

    Attributes:
        keys: of the images that could be decoded.
        images: those images, RGB.
        names: what an error message calls each of them.
        bad: keys of images between them that could not be decoded, with the reason.
    """

    keys: list[bytes] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    bad: dict[bytes, str] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """Of all its images."""
        return sum(image.width * image.height for image in self.images)


def image_calls(sources: Sequence[tuple[bytes, ImageSource]], *, skip_bad: bool) -> Iterator[ImageCall]:
    """Calls that hold all images of `sources`, in order.

    Raises:
        BadImageError: an image that cannot be read or decoded, unless `skip_bad`.
        DistilvlError: an image whose bytes are not those of its key any more.
    """
    call = ImageCall()
    for key, source in sources:
        try:
            image = _decoded(source, key)
        except BadImageError as error:
            if not skip_bad:
                raise
            call.bad[key] = error.reason or NOT_DECODED
            continue
        if call.images and call.pixels + image.width * image.height > PIXELS_A_CALL:
            yield call
            call = ImageCall()
        call.keys.append(key)
        call.images.append(image)
        call.names.append(source.name)
        if len(call.images) == IMAGES_A_CALL:
            yield call
            call = ImageCall()
    yield call


def made_ahead(items: Iterator[T]) -> Iterator[T]:
    """`items`, of which the next one is made in a thread while this one is used; never more than one ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _decoded(source: ImageSource, key: bytes) -> Image.Image:
    data = source.read()
    whole = source.image_key if isinstance(source, ViewedImage) else key
    if image_key(data) != whole:
        raise DistilvlError(
            f"image {source.name} changed while it was being read.",
            "Run the command again when it is at rest.",
        )
    image = decode_image(data, source.name)
    return source.view.of(image) if isinstance(source, ViewedImage) else image
