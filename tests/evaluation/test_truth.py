"""What counts as right, from the reader of a dataset to the printed score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

import distilvl
from distilvl.cli import app
from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import evaluate_arrays
from distilvl.evaluation.ground_truth import GroundTruth
from distilvl.evaluation.intervals import few_arrays, few_images
from distilvl.teachers.base import Teacher


class Ideal(Teacher):
    """RightAnswers that depend on the content alone: the grey of a picture, and the number in a text."""

    name, revision, dim = "ideal", "1", 16

    def encode_images(self, images: Any) -> npt.NDArray[np.float32]:
        return np.stack([_row(int(np.asarray(image)[0, 0, 0])) for image in images])

    def encode_texts(self, texts: Any) -> npt.NDArray[np.float32]:
        return np.stack([_row(int("".join(filter(str.isdigit, text)) or 0)) for text in texts])


def _row(number: int) -> npt.NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=16).astype(np.float32)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write pictures of the greys given, each with captions and a split, as a list of the kind wanted."""

    def make(items: list[tuple[int, list[str], str | None]], kind: str = "captions.jsonl") -> Path:
        folder = tmp_path / "data"
        (folder / "images").mkdir(parents=True)
        for k, (grey, _, _) in enumerate(items):
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / "images" / f"{k:03d}.png")
        if kind == "captions.jsonl":
            lines = [{"image": f"images/{k:03d}.png", "captions": captions, **({"split": split} if split else {})}
                     for k, (_, captions, split) in enumerate(items)]  # fmt: skip
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
        else:
            images = [{"filename": f"{k:03d}.png", "split": split, "sentences": [{"raw": text} for text in captions]}
                      for k, (_, captions, split) in enumerate(items)]  # fmt: skip
            text = json.dumps({"images": images})
        (folder / kind).write_text(text, encoding="utf-8")
        return folder

    return make


def _titles(count: int = 24) -> list[tuple[int, list[str], str | None]]:
    """Every title is that of two pictures that are equal, in one of several spellings."""
    return [(k // 2, [f"Title  {k // 2}" if k % 2 else f"title {k // 2} "], "test") for k in range(count)]


def test_ideal_answers_to_titles_in_pairs_are_right(write: Write) -> None:
    data = write(_titles())
    found = distilvl.evaluate(Ideal(), data)
    assert found.student.rsum == 600
    assert found.truth == GroundTruth("content", equal_pictures=24, equal_captions=24)
    assert found.precision is not None
    assert [(way.r_precision, way.map_at_r) for way in found.precision] == [(100, 100), (100, 100)]
    out = found.as_dict()
    assert (out["ground_truth"], out["equal_captions"], out["equal_pictures"]) == ("content", 24, 24)
    pairs = distilvl.evaluate(Ideal(), data, ground_truth="pairs")
    assert (pairs.student.image_to_text.r1, pairs.student.text_to_image.r1) == (0, 0)
    assert pairs.as_dict()["ground_truth"] == "pairs"


def test_karpathys_json_is_counted_as_published(write: Write) -> None:
    data = write(_titles(), "dataset.json")
    assert distilvl.evaluate(Ideal(), data).as_dict()["ground_truth"] == "pairs"
    assert distilvl.evaluate(Ideal(), data).student.image_to_text.r1 == 0
    content = distilvl.evaluate(Ideal(), data, ground_truth="content")
    assert (content.student.rsum, content.as_dict()["ground_truth"]) == (600, "content")


def test_a_protocol_is_counted_as_published() -> None:
    rng = np.random.default_rng(0)
    images, owner = rng.normal(size=(1000, 4)), np.repeat(np.arange(1000), 5)
    found = evaluate_arrays(images, images[owner], owner, "flickr8k-1k")
    assert found.truth == GroundTruth("pairs")
    assert "equal_captions" not in found.as_dict()


def test_an_unknown_ground_truth_is_named(write: Write) -> None:
    with pytest.raises(DistilvlError, match=r"there is no ground truth 'words'.*content, pairs, cxc, eccv"):
        distilvl.evaluate(Ideal(), write(_titles()), ground_truth="words")


def test_two_models_are_compared_on_one_ground_truth(write: Write) -> None:
    data = write([*_titles(), *((100 + k, [f"title {100 + k}"], "test") for k in range(6))])
    for truth, units in (("content", 18), ("pairs", 30)):
        found = distilvl.evaluate(Ideal(), data, ground_truth=truth, compare=Ideal())
        assert found.comparison is not None
        assert (found.comparison.difference, found.comparison.images) == (0, units)


def test_equal_gallery_is_refused_by_its_reason(write: Write) -> None:
    with pytest.raises(DistilvlError, match=r"all 3 captions of .* are equal word by word"):
        distilvl.evaluate(Ideal(), write([(k, ["a photo" if k else "A  photo"], "test") for k in range(3)]))


def test_equal_pictures_only_are_refused_by_their_reason(write: Write) -> None:
    with pytest.raises(DistilvlError, match=r"all 3 pictures of .* are equal byte by byte"):
        distilvl.evaluate(Ideal(), write([(1, [f"title {k}"], "test") for k in range(3)]))


def test_one_image_with_one_caption_is_scored(write: Write) -> None:
    found = distilvl.evaluate(Ideal(), write([(1, ["title 1"], "test")]))
    assert (found.student.rsum, found.intervals, found.retention) == (600, None, None)
    assert found.note == "test has only one image; a score on so few is coarse."


def test_all_splits_are_scored_together(write: Write) -> None:
    data = write([(k, [f"title {k}"], split) for k, split in enumerate(["train", "val", "test"] * 40)])
    whole = distilvl.evaluate(Ideal(), data, split="all")
    assert (whole.student.images, whole.student.rsum, whole.note) == (120, 600, None)
    part = distilvl.evaluate(Ideal(), data, split="val")
    assert part.student.images == 40
    assert part.note == (
        "val has only 40 images; a score on so few is coarse: its 95 % interval of RSUM is 600 to 600. "
        "--split all scores all 120, those that a model may have learnt from included."
    )


def test_a_split_that_is_called_all_is_that_split(write: Write) -> None:
    data = load_dataset(write([(k, [f"title {k}"], "all" if k < 3 else "test") for k in range(5)]))
    assert [len(data.split(name)) for name in ("all", "test")] == [3, 2]


def test_a_small_split_by_hash_is_said_to_be_one(write: Write) -> None:
    data = load_dataset(write([(k, [f"title {k}"], None) for k in range(120)]))
    images = data.splits["test"]
    assert few_images(data, "test", (11.4, 90.6)) == (
        f"test has only {images} images, chosen by the hash of their names; a score on so few is coarse: its 95 % "
        "interval of RSUM is 11 to 91. --split all scores all 120, those that a model may have learnt from included."
    )
    assert few_images(data, "all") is None


def test_the_note_speaks_of_the_images_that_are_scored(write: Write) -> None:
    data = load_dataset(write([(k, [f"title {k}"], "test") for k in range(120)]))
    assert few_images(data, "test", scored=120) is few_arrays(100) is None
    told = "only 15 of the 120 images of test are scored; a score on so few is coarse. Score more."
    assert few_images(data, "test", remedy="Score more.", scored=15) == told
    found = evaluate_arrays(np.eye(18), np.eye(18), np.arange(18))
    assert found.intervals is not None
    low, high = found.intervals["rsum"]
    told = (
        f"only 18 images are scored; a score on so few is coarse: its 95 % interval of RSUM is {low:.0f} to {high:.0f}."
    )
    assert found.note == found.as_dict()["note"] == told
    assert evaluate_arrays(np.eye(100), np.eye(100), np.arange(100)).note is None


def test_the_command_says_what_was_counted(write: Write, tmp_path: Path) -> None:
    data = write(_titles())
    (tmp_path / "ideal.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    base = ["eval", f"{tmp_path / 'ideal.py'}:Ideal", "--data", str(data)]
    printed = CliRunner().invoke(app, base)
    assert printed.exit_code == 0, printed.output
    assert "ground truth: content (24 captions and 24 pictures are also another image's)" in printed.stdout
    assert "note: test has only 24 images; a score on so few is coarse" in printed.stderr
    pairs = CliRunner().invoke(app, [*base, "--ground-truth", "pairs", "--split", "all", "--json"])
    found = json.loads(pairs.stdout)
    assert (found["ground_truth"], found["image_to_text"]["r1"], found["images"]) == ("pairs", 0, 24)
    assert found["note"].startswith("all has only 24 images")


def test_arrays_have_pairs_alone(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 3))
    names = [tmp_path / f"{name}.npy" for name in ("i", "t", "o")]
    for name, array in zip(names, (rows, rows, np.arange(4)), strict=True):
        np.save(name, array)
    options = ["--image-features", "--text-features", "--text-image"]
    base = ["eval", *(str(part) for pair in zip(options, names, strict=True) for part in pair)]
    for extra in ([], ["--ground-truth", "pairs"]):
        found = CliRunner().invoke(app, [*base, *extra])
        assert "ground truth: pairs (features do not tell which captions and pictures are equal)" in found.output
    refused = CliRunner().invoke(app, [*base, "--ground-truth", "content"])
    assert refused.exit_code != 0
    assert "--ground-truth content does not go with --image-features" in str(refused.exception or refused.output)


def test_hard_negatives_that_are_right_captions_are_left_out_and_counted(write: Write) -> None:
    from dataclasses import replace

    data = load_dataset(write([(k // 2, [f"title {k}"], "test") for k in range(6)]))
    # 0 and 1 are one picture, so the first is right; the third is its image's own caption.
    wrong = ["TITLE 1", "title 77", "title 2", "title 88", "title 99", "title 66"]
    records = [replace(record, hard_negatives=(text,)) for record, text in zip(data, wrong, strict=True)]
    found = distilvl.evaluate(Ideal(), data.only(records))
    assert found.same_negatives == found.as_dict()["hard_negatives_left_out"] == 2
    # Negatives may well be equal to each other.
    whole = distilvl.evaluate(Ideal(), data.only([replace(one, hard_negatives=("title 77",)) for one in data]))
    assert (whole.same_negatives, "hard_negatives_left_out" in whole.as_dict()) == (0, False)


def test_agreement_is_that_of_different_items(write: Write, tmp_path: Path) -> None:
    """Copies of an item tie in all lists, so that their order says nothing."""
    from distilvl.extraction import extract_features

    data = load_dataset(write([*_titles(40), *((100 + k, [f"title {100 + k}"], "test") for k in range(12))]))
    extract_features(Ideal(), data, tmp_path / "store")
    found = distilvl.evaluate(Ideal(), data, features=tmp_path / "store")
    assert found.agreement is not None
    assert found.agreement.overlap == (1, 1)
    assert found.agreement.rank_correlation == pytest.approx((1, 1), abs=1e-3)  # stored in float16


def test_a_teacher_that_finds_nothing_leaves_no_retention() -> None:
    from distilvl.evaluation.evaluate import Evaluation
    from distilvl.evaluation.score import Recalls, Score

    some, none = Recalls(1, 2, 3), Recalls(0, 0, 0)
    found = Evaluation(Score(some, some, 20, 20), Score(none, none, 20, 20), None, 0)
    assert found.retention is None
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["retention"] is None
