from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.pictures.decode import decode_image
from distilvl.runtime import Runtime
from distilvl.teachers.base import Teacher


def encode(image: Image.Image, **options: object) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def colours(*values: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (30, 20), value) for value in values]


def test_the_module_and_a_query_leave_torch_unloaded(folder: Path) -> None:
    code = (
        "import sys\n"
        "import distilvl.runtime\n"
        "from PIL import Image\n"
        "one = distilvl.runtime.Runtime.load(sys.argv[1])\n"
        "one.encode_texts(['dog'])\n"
        "one.encode_images([Image.new('RGB', (9, 9))])\n"
        "loaded = {'torch', 'transformers', 'sentence_transformers', 'pydantic', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_query_of_a_process_takes_less_than_a_second(folder: Path) -> None:
    """Processor time since the process began, imports included: unlike the clock, it does not see other processes."""
    code = (
        "import sys, time\n"
        "from distilvl.runtime import Runtime\n"
        "Runtime.load(sys.argv[1], threads=1).encode_texts(['dog'])\n"
        "print(time.process_time())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1


def test_it_is_a_teacher(folder: Path) -> None:
    runtime = Runtime.load(folder, threads=1)
    assert isinstance(runtime, Teacher)
    assert (runtime.name, runtime.revision, runtime.dim) == ("tiny", "abc-fp32", 4)
    assert "bilinear" in runtime.preprocessing


def test_images_become_rows_in_order(folder: Path) -> None:
    runtime = Runtime.load(folder)
    pictures = colours(*((k, 255 - k, k // 2) for k in range(150)))
    rows = runtime.encode_images(pictures)
    assert rows.shape == (150, 4)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[77], runtime.encode_images([pictures[77]])[0], rtol=1e-5)
    assert not np.allclose(rows[0], rows[149])


def test_texts_become_rows_in_order_whatever_their_length(folder: Path) -> None:
    runtime = Runtime.load(folder)
    texts = ["dog", "dog cat red", "", "zebra", "red dog"] * 30
    rows = runtime.encode_texts(texts)
    for k, text in enumerate(texts[:5]):
        np.testing.assert_allclose(rows[k + 5], runtime.encode_texts([text])[0], atol=1e-6)
    np.testing.assert_allclose(rows[1], runtime.encode_texts(["dog", "cat", "red"]).sum(axis=0), atol=1e-6)


def test_long_texts_are_cut(folder: Path) -> None:
    runtime = Runtime.load(folder)
    np.testing.assert_array_equal(runtime.encode_texts(["dog cat red dog dog"]), runtime.encode_texts(["dog cat red"]))


def test_nothing_in_nothing_out(folder: Path) -> None:
    runtime = Runtime.load(folder)
    assert runtime.encode_images([]).shape == runtime.encode_texts([]).shape == (0, 4)


def test_turned_and_cmyk_pictures_are_decoded_as_everywhere(folder: Path) -> None:
    runtime = Runtime.load(folder)
    upright = Image.new("RGB", (40, 20), (255, 0, 0))
    upright.paste((0, 0, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = encode(upright.rotate(90, expand=True), format="PNG", exif=exif)
    expected = runtime.encode_images([upright])
    np.testing.assert_allclose(runtime.encode_images([decode_image(turned, "turned")]), expected, rtol=1e-5)
    cmyk = encode(upright.convert("CMYK"), format="JPEG", quality=100, subsampling=0)
    np.testing.assert_allclose(runtime.encode_images([decode_image(cmyk, "cmyk")]), expected, atol=3)


def test_grey_pictures_are_made_rgb(folder: Path) -> None:
    runtime = Runtime.load(folder)
    grey = Image.new("L", (9, 9), 70)
    np.testing.assert_array_equal(runtime.encode_images([grey]), runtime.encode_images([grey.convert("RGB")]))


def test_many_threads_may_ask_at_once(folder: Path) -> None:
    runtime = Runtime.load(folder, threads=1)
    expected = runtime.encode_texts(["red dog"])
    fresh = Runtime.load(folder, threads=1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fresh.encode_texts(["red dog"]), range(40)))
    assert all(np.array_equal(one, expected) for one in found)


@pytest.mark.parametrize("item", [None, 3, b"dog", "\ud800"])
def test_what_is_no_text_is_named(folder: Path, item: object) -> None:
    with pytest.raises(DistilvlError, match="1"):
        Runtime.load(folder).encode_texts(["dog", item])  # type: ignore[list-item]


def test_what_is_no_picture_is_named(folder: Path) -> None:
    with pytest.raises(DistilvlError, match="item 1 is no picture but a str"):
        Runtime.load(folder).encode_images([Image.new("RGB", (3, 3)), "dog.jpg"])  # type: ignore[list-item]


def test_a_precision_that_is_not_there(folder: Path) -> None:
    with pytest.raises(DistilvlError, match=r"no dtype 'int8'. It has: fp32"):
        Runtime.load(folder, precision="int8")


def test_no_threads(folder: Path) -> None:
    with pytest.raises(DistilvlError, match="0 threads"):
        Runtime.load(folder, threads=0)
