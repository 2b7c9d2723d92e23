"""Whoever is given a picture sees the same one: a table of modes by what looks at them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from distilvl.config import StudentConfig
from distilvl.errors import BadImageError
from distilvl.pictures import decode_image, upright_rgb
from distilvl.runtime.inputs import to_pixels
from distilvl.students import DualEncoder, build_student, load_student, save_student
from distilvl.teachers.demo_network import pixels_of
from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher

from .drawn import LOSSLESS, MODES, drawn, encoded, in_mode, swapped_profile

STUDENT = {
    "image": {
        "config": {
            "model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "image_size": 32, "patch_size": 8, "initializer_range": 0.2,
        },
        "size": 32, "pooling": "mean",
    },
    "text": {
        "config": {
            "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 32,
        },
        "vocabulary": 40, "max_length": 24, "pooling": "mean",
    },
}  # fmt: skip
STEPS = ({"step": "resize", "height": 32, "width": 32, "resample": "bicubic"},)
Pixels = npt.NDArray[np.generic]

# In a program without this package, as the model card shows it.
ALONE = """
import importlib.util, json, sys
sys.modules["distilvl"] = None
spec = importlib.util.spec_from_file_location("drawn", sys.argv[2])
drawn = importlib.util.module_from_spec(spec); spec.loader.exec_module(drawn)
from sentence_transformers import SentenceTransformer
student = SentenceTransformer(sys.argv[1], device="cpu")
pairs = [drawn.in_mode(mode) for mode in drawn.LOSSLESS]
rows = [student.encode([image for pair in pairs for image in pair][k : k + 1])[0] for k in range(2 * len(pairs))]
print(json.dumps([[float(value) for value in row] for row in rows]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    student = build_student(StudentConfig.model_validate(STUDENT), 16, ["a red dog", "a blue cat"])
    path = tmp_path_factory.mktemp("student") / "student"
    save_student(student, path)
    return path


@pytest.fixture(scope="module")
def student(saved: Path) -> SentenceTransformer:
    return load_student(saved, device="cpu")


def consumers(student: SentenceTransformer, saved: Path) -> dict[str, Callable[[Image.Image], Pixels]]:
    """What each makes of a PIL image."""
    from distilvl.search.query import query_embedding

    encoder, teacher = DualEncoder(student), SentenceTransformerTeacher(str(saved))

    class Looks:
        """An encoder that says what it is shown."""

        def encode_images(self, images: list[Image.Image]) -> list[Pixels]:
            return [np.asarray(image) for image in images]

    return {
        "training": lambda image: encoder.resize([image]),
        "runtime": lambda image: to_pixels([image], STEPS, (32, 32)),
        "search by picture": lambda image: query_embedding(Looks, lambda _: None, None, image, None, None, None),  # type: ignore[arg-type, return-value]
        "the demo's teacher": lambda image: pixels_of([image]).numpy(),
        "a SentenceTransformer as teacher": lambda image: teacher.encode_images([image]),
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_seen_as_its_rgb_picture(mode: str, student: SentenceTransformer, saved: Path) -> None:
    pytest.importorskip("lancedb")
    image, _ = in_mode(mode)
    expected = upright_rgb(image, "n")
    for name, look in consumers(student, saved).items():
        np.testing.assert_array_equal(look(image), look(expected), err_msg=f"{mode}, {name}")


@pytest.mark.parametrize("kind", ["profile", "orientation", "transparency"])
def test_all_else_of_a_pil_image_is_seen(kind: str, student: SentenceTransformer, saved: Path) -> None:
    pytest.importorskip("lancedb")
    image = drawn()
    if kind == "profile":
        image.info["icc_profile"] = swapped_profile()
    elif kind == "orientation":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.info["exif"] = exif.tobytes()
    else:
        image = image.convert("RGBA")
        image.paste((9, 9, 9, 0), (0, 0, 80, 120))
    expected = upright_rgb(image, "n")
    for name, look in consumers(student, saved).items():
        np.testing.assert_array_equal(look(image), look(expected), err_msg=name)
        assert not np.array_equal(look(expected), look(drawn())), name


def test_what_has_no_range_is_refused_by_all(student: SentenceTransformer, saved: Path) -> None:
    pytest.importorskip("lancedb")
    for look in consumers(student, saved).values():
        with pytest.raises(BadImageError, match="floating-point values of unknown range"):
            look(Image.new("F", (40, 30), 0.5))


def test_training_and_encode_agree(student: SentenceTransformer) -> None:
    encoder = DualEncoder(student).eval()
    for mode in LOSSLESS:
        image, _ = in_mode(mode)
        with torch.no_grad():
            trained = encoder.encode_images(torch.from_numpy(encoder.resize([image])))[0].numpy()
        np.testing.assert_allclose(trained, student.encode([image])[0], atol=2e-3, err_msg=mode)


def test_a_saved_student_takes_every_mode_without_this_package(saved: Path) -> None:
    drawn_py = Path(__file__).with_name("drawn.py")
    command = [sys.executable, "-c", ALONE, str(saved), str(drawn_py)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    rows = np.asarray(json.loads(out.stdout.splitlines()[-1])).reshape(len(LOSSLESS), 2, -1)
    for mode, (found, expected) in zip(LOSSLESS, rows, strict=True):
        assert found @ expected >= (0.998 if mode in ("YCbCr", "LAB", "HSV") else 0.99999), mode
    assert abs(rows[0, 1] @ rows[LOSSLESS.index("1"), 1]) < 0.9, "other pictures have other rows"


def test_a_student_that_was_saved_without_the_setting_has_it_when_loaded(saved: Path, tmp_path: Path) -> None:
    import shutil

    old = tmp_path / "old"
    shutil.copytree(saved, old)
    (path,) = old.glob("image_0_*/preprocessor_config.json")
    fields = json.loads(path.read_text(encoding="utf-8"))
    assert fields.pop("do_convert_rgb") is True
    path.write_text(json.dumps(fields), encoding="utf-8")
    (old / "SHA256SUMS").unlink()
    student = load_student(old, device="cpu")
    assert student.encode([drawn().convert("RGBA")]).shape == (1, 16)
    assert DualEncoder(student).preprocessing == DualEncoder(load_student(saved, device="cpu")).preprocessing
    save_student(student, tmp_path / "again")
    (again,) = (tmp_path / "again").glob("image_0_*/preprocessor_config.json")
    assert json.loads(again.read_text(encoding="utf-8"))["do_convert_rgb"] is True


def test_the_index_and_the_server_see_what_the_readers_see(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    pytest.importorskip("fastapi")
    from distilvl.data.records import FileImage, PairDataset, Record
    from distilvl.extraction.work import image_calls
    from distilvl.io.hashes import image_key
    from distilvl.search.photographs import list_files, read_picture
    from distilvl.serving.picture_strings import count_pixels, decode_picture, picture_bytes

    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(drawn().convert("CMYK"), "JPEG", exif=exif, quality=95)[:-2]
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(decode_image(data, "n"))
    (file,) = list_files(tmp_path)
    source = FileImage(str(tmp_path / "a.jpg"))
    sent = picture_bytes(f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", "input")
    (call,) = image_calls([(image_key(data), source)], skip_bad=False)
    seen = [read_picture(file, set()).image, decode_picture(sent, "input"), call.images[0]]
    assert count_pixels(sent, 10**6, "input") == 160 * 120
    for image in seen:
        np.testing.assert_array_equal(np.asarray(image), expected)
    dataset = PairDataset("one", (Record("a", source, ("a",), "train"),))
    from distilvl.data.pixels import Decoding

    ((image,),) = Decoding(dataset, False, "reading").blocks()
    np.testing.assert_array_equal(np.asarray(image), expected)
