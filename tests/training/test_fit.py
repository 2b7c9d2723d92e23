"""`distilvl fit`: students in closed form, on small real towers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import Ridge

import distilvl
from distilvl.data import PairDataset, load_dataset
from distilvl.data.crops import Crops
from distilvl.data.phrases import phrases
from distilvl.errors import DistilvlError
from distilvl.extraction import Cluster
from distilvl.features import FeatureStore
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.io.hashes import image_key, text_key
from distilvl.recipes import load_config, load_fit_config
from distilvl.students import DualEncoder, load_student
from distilvl.students.build import build_student
from distilvl.training.gather import Pass

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
PLACES = ("left", "middle", "right")
InTwoProcesses = Callable[..., list[subprocess.CompletedProcess[str]]]
PLAIN = ["fit.precision=fp32"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """144 pictures of a coloured box, two captions each: 96 to fit to, 24 to score on, 24 to spare."""
    folder = tmp_path_factory.mktemp("fit") / "pictures"
    folder.mkdir()
    lines = []
    for k in range(144):
        colour, place = COLOURS[k % 8], PLACES[k // 8 % 3]
        image = Image.new("RGB", (40, 32), "white")
        left, top = 12 * PLACES.index(place) + k % 3, k // 24 % 6
        ImageDraw.Draw(image).rectangle((left, top, left + 10 + k % 2, top + 14), fill=colour)
        image.putpixel((39, 31), (k, 0, 0))  # no two files are equal
        image.save(folder / f"{k:03d}.png")
        split = "train" if k % 6 < 4 else "val" if k % 6 == 4 else "test"
        captions = [f"a {colour} box on the {place}", f"the box is {colour}, number {k % 5}"]
        lines.append({"image": f"{k:03d}.png", "captions": captions, "split": split})
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def student(static_student: str) -> str:
    return static_student


@pytest.fixture(scope="module")
def run(pictures: Path, student: str, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made by the command."""
    out = tmp_path_factory.mktemp("runs") / "fitted"
    command = [sys.executable, "-m", "distilvl", "fit", "--teacher", teacher, "--data", str(pictures), "--student",
               student, "--out", str(out), "--set", PLAIN[0], "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())
    return out


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())  # type: ignore[no-any-return]


def test_a_fitted_student_keeps_most_of_its_teacher(run: Path) -> None:
    found = result(run)
    assert found["retention"] > 0.5
    assert {"student_images_teacher_texts", "teacher_images_student_texts"} <= set(found)
    assert set(found["chosen"]) == {"image", "text"}
    assert found["vocabulary"]["unknown_rate"] == 0
    assert found["parameters"] == sum(weight.numel() for weight in load_student(run).parameters())


def test_it_is_a_plain_sentence_transformer(run: Path, pictures: Path) -> None:
    plain, encoder = SentenceTransformer(str(run / "student"), device="cpu"), DualEncoder(load_student(run))
    image, texts = Image.open(pictures / "004.png").convert("RGB"), ["a red box on the left", "", "something else"]
    np.testing.assert_allclose(np.linalg.norm(plain.encode(texts), axis=1), 1, rtol=1e-5)
    with torch.no_grad():
        ids, mask = encoder.pad(encoder.tokenize(texts))
        np.testing.assert_allclose(plain.encode(texts), encoder.encode_texts(ids, mask), atol=1e-6)
        pixels = torch.from_numpy(encoder.resize([image]))
        np.testing.assert_allclose(plain.encode([image]), encoder.encode_images(pixels), atol=1e-6)


def test_eval_gives_the_scores_of_the_result(run: Path, pictures: Path) -> None:
    found = distilvl.evaluate(run, pictures, split="val")
    assert found.student.rsum == pytest.approx(result(run)["val"]["rsum"])
    assert found.teacher is not None
    assert found.teacher.rsum == pytest.approx(result(run)["teacher"]["rsum"])


def test_a_finished_run_is_found_done(
    run: Path, pictures: Path, student: str, teacher: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = (run / "student" / "modules.json").stat().st_mtime_ns
    caplog.set_level("INFO")
    distilvl.fit(teacher=teacher, data=pictures, student=student, out=run, overrides=PLAIN)
    assert "is finished" in caplog.text
    assert (run / "student" / "modules.json").stat().st_mtime_ns == before


def test_another_configuration_in_its_folder_is_refused(run: Path, pictures: Path, student: str, teacher: str) -> None:
    with pytest.raises(DistilvlError, match=r"holds a run with fit.scale = 0.5, not 1"):
        distilvl.fit(teacher=teacher, data=pictures, student=student, out=run, overrides=[*PLAIN, "fit.scale=1"])


def test_the_saved_configuration_repeats_it(run: Path, tmp_path: Path) -> None:
    distilvl.fit(recipe=run / "config.yaml", out=tmp_path / "again", features=None)
    again = load_file(next((tmp_path / "again" / "student").glob("text_0_*/model.safetensors")))
    first = load_file(next((run / "student").glob("text_0_*/model.safetensors")))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_card_and_report_tell_how_it_was_made(run: Path) -> None:
    card = (run / "student" / "README.md").read_text(encoding="utf-8")
    assert "solved in closed form" in card
    assert "`distilvl fit --recipe FILE --out FOLDER` repeats it" in card
    assert "chosen on a held-out part of its training data" in card
    report = pytest.importorskip("distilvl.reports.report").build_report([run], timed=False)
    assert report.runs[0].state.text == "Finished: solved in closed form, without a training step."
    assert report.runs[0].command.startswith("distilvl fit --recipe")
    page = pytest.importorskip("distilvl.reports.html").render_html(report)
    assert "Seed 0." in page
    assert "solved in closed form" in page


def head_by_sklearn(run: Path, views: list[list[Image.Image]], wanted: list[np.ndarray]) -> np.ndarray:
    """W of the image head as scikit-learn's ridge finds it, with the ridge that the run chose."""
    encoder = DualEncoder(load_student(run))
    with torch.no_grad():
        pixels = [torch.from_numpy(encoder.resize(images)) for images in views]
        sides = [side for view in pixels for side in (view, view.flip(3))]
        x = np.concatenate([encoder.pool_images(side).numpy() for side in sides]).astype(np.float64)
    root = np.sqrt(x.std(0))
    alpha = result(run)["chosen"]["image"]["ridge"] * np.mean(root**2)
    targets = np.concatenate([target for target in wanted for _ in range(2)]).astype(np.float64)
    return Ridge(alpha=alpha).fit(x / root, targets).coef_ / root  # type: ignore[no-any-return]


def targets_of(store: FeatureStore, run: Path, train: PairDataset, keys: list[bytes]) -> np.ndarray:
    """u^v of these images, or crops, and their captions' mean beside."""
    captions = np.stack([store.texts([text_key(text) for text in record.captions]).mean(0) for record in train])
    return store.images(keys).astype(np.float64) + result(run)["chosen"]["image"]["partner"] * captions


def test_the_image_head_is_the_ridge_regression_on_images_and_their_mirror_images(run: Path, pictures: Path) -> None:
    store, train = FeatureStore.open(run / "features"), load_dataset(pictures).split("train")
    images = [Image.open(record.image.name).convert("RGB") for record in train]
    keys = [image_key(record.image.read()) for record in train]
    wanted = head_by_sklearn(run, [images], [targets_of(store, run, train, keys)])
    np.testing.assert_allclose(
        DualEncoder(load_student(run)).head("image").weight.detach(), wanted, rtol=2e-3, atol=2e-4
    )


@pytest.mark.parametrize("own", [True, False])
def test_crops_are_fitted_to_with_their_own_features_or_those_of_the_whole_image(
    pictures: Path, student: str, teacher: str, tmp_path: Path, own: bool
) -> None:
    settings = [] if own else ["fit.crop_features=whole", "fit.crop_colour=0.2", "fit.crop_grey=0.1"]
    distilvl.fit(teacher=teacher, data=pictures, student=student, out=tmp_path / "run", device="cpu",
                 overrides=[*PLAIN, "fit.crops=3", *settings])  # fmt: skip
    store, train = FeatureStore.open(tmp_path / "run" / "features"), load_dataset(pictures).split("train")
    assert store.verify().views == (192 if own else 0)
    crops = Crops(count=3) if own else Crops(count=3, flip=True, colour=0.2, grey=0.1)
    images = [Image.open(record.image.name).convert("RGB") for record in train]
    keys = [image_key(record.image.read()) for record in train]
    views = [[crops.crop(key, k).of(image) for key, image in zip(keys, images, strict=True)] for k in range(3)]
    found = [[crops.crop(key, k if own else 0).key(key) for key in keys] for k in range(3)]
    wanted = head_by_sklearn(
        tmp_path / "run", views, [targets_of(store, tmp_path / "run", train, one) for one in found]
    )
    head = DualEncoder(load_student(tmp_path / "run")).head("image")
    np.testing.assert_allclose(head.weight.detach(), wanted, rtol=5e-3, atol=5e-4)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {f"{path.parent.name}/{name}": tensor for path in sorted((run / "student").glob("*/model.safetensors"))
            for name, tensor in load_file(path).items()}  # fmt: skip


def same(one: Path, other: Path) -> None:
    assert result(one)["chosen"]["image"]["ridge"] == result(other)["chosen"]["image"]["ridge"]
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(other)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_give_the_student_of_one(
    in_two_processes: Callable[..., list[subprocess.CompletedProcess[str]]],
    run: Path,
    pictures: Path,
    student: str,
    tmp_path: Path,
) -> None:
    command = ["-m", "distilvl", "fit", "--features", str(run / "features"), "--data", str(pictures), "--student",
               student, "--out", str(tmp_path / "two"), "--set", PLAIN[0], "--device", "cpu"]  # fmt: skip
    for done in in_two_processes(*command):
        assert done.returncode == 0, done.stderr[-3000:]
    assert result(tmp_path / "two")["processes"] == 2
    same(run, tmp_path / "two")


@pytest.mark.slow
def test_a_ray_cluster_gives_the_student_of_one(run: Path, pictures: Path, student: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    distilvl.fit(features=run / "features", data=pictures, student=student, out=tmp_path / "ray", overrides=PLAIN,
                 device="cpu", cluster=Cluster(workers=2))  # fmt: skip
    same(run, tmp_path / "ray")


@pytest.fixture(scope="module")
def photographs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the split train, without their captions, in a folder whose name has commas."""
    folder = tmp_path_factory.mktemp("fit") / "photographs, my own, all"
    folder.mkdir()
    for record in load_dataset(pictures).split("train"):
        path = Path(record.image.name)
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions of other pictures."""
    file = tmp_path_factory.mktemp("fit") / "texts, mine.txt"
    lines = [f"a {colour} {thing} on the {place}" for colour in COLOURS for place in PLACES for thing in ("box", "cup")]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_photographs_without_captions_and_a_list_of_texts(
    pictures: Path, photographs: Path, texts: Path, student: str, teacher: str, tmp_path: Path
) -> None:
    out, scored = tmp_path / "unpaired", tmp_path / "scored"
    given: dict[str, Any] = {"teacher": teacher, "data": photographs, "texts": texts}
    distilvl.fit(**given, student=student, out=out, overrides=PLAIN)
    assert "val" not in result(out)
    assert yaml.safe_load((out / "config.yaml").read_text())["inputs"]["data"] == f"unpaired:{photographs},{texts}"
    assert result(out)["chosen"]["text"]["partner"] is None
    assert "It was not scored" in (out / "student" / "README.md").read_text(encoding="utf-8")
    report = pytest.importorskip("distilvl.reports.report").build_report([out], timed=False)
    assert report.runs[0].state.kind == "finished"
    distilvl.fit(**given, val_data=pictures, student=student, out=scored, overrides=PLAIN)
    assert result(scored)["retention"] > 0.3


def test_photographs_alone_are_fitted_with_sentences_of_our_own(
    pictures: Path, photographs: Path, student: str, teacher: str, tmp_path: Path
) -> None:
    out, more = tmp_path / "out", ["student.text.vocabulary=1000", *PLAIN]
    distilvl.fit(data=photographs, teacher=teacher, val_data=pictures, student=student, out=out, overrides=more)
    assert result(out)["retention"] > 0.3
    assert yaml.safe_load((out / "config.yaml").read_text())["inputs"]["data"] == f"unpaired:{photographs}"
    store = FeatureStore.open(out / "features")
    assert not store.missing("text", [text_key(text) for text in phrases()])


def test_texts_stand_beside_a_folder_and_no_other_data(texts: Path, student: str, teacher: str, tmp_path: Path) -> None:
    for data, named in ((None, "not named"), ("unpaired:a,b.txt", "unpaired:a,b.txt")):
        with pytest.raises(DistilvlError, match=rf"texts are for a folder of images, and data is {named}\..*--data"):
            distilvl.fit(data=data, texts=texts, teacher=teacher, student=student, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_transformer_text_tower_gets_a_head(pictures: Path, student: str, tmp_path: Path, run: Path) -> None:
    section = yaml.safe_load(Path(student).read_text())
    section["text"] = {"config": {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 9,
                                  "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 48},
                       "vocabulary": 120, "max_length": 40, "pooling": "mean"}  # fmt: skip
    (tmp_path / "bert.yaml").write_text(yaml.safe_dump(section), encoding="utf-8")
    distilvl.fit(features=run / "features", data=pictures, student=tmp_path / "bert.yaml", out=tmp_path / "out",
                 overrides=PLAIN)  # fmt: skip
    assert result(tmp_path / "out")["retention"] > 0.3


def test_a_bad_image_stops_it_or_is_left_out(pictures: Path, student: str, teacher: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "000.png").write_bytes(b"no picture")
    how: dict[str, Any] = {"teacher": teacher, "data": folder, "student": student, "overrides": PLAIN}
    with pytest.raises(DistilvlError, match=r"000\.png"):
        distilvl.fit(**how, out=tmp_path / "stopped")
    distilvl.fit(**how, out=tmp_path / "out", skip_bad=True)
    assert result(tmp_path / "out")["left_out"]["total"] == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("student.normalize=false", "have a direction only"),
        ("student.dim=8", "the features of colour have 12"),
        ("fit.ridges=[]", "at least 1 item"),
        ("fit.rigdes=[1]", r"Did you mean fit\.ridges"),
        ("training.epochs=3", "unknown key 'training'"),
        ("inputs.extra_data=scenes", "extra_data is of distilvl train"),
    ],
)
def test_settings_that_make_no_sense_are_errors(
    override: str, words: str, run: Path, pictures: Path, student: str, tmp_path: Path
) -> None:
    with pytest.raises(DistilvlError, match=words):
        distilvl.fit(features=run / "features", data=pictures, student=student, out=tmp_path / "out",
                     overrides=[*PLAIN, override])  # fmt: skip


def test_what_is_missing_is_said(pictures: Path, student: str, teacher: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="fitted to a teacher's features, and none is named"):
        distilvl.fit(data=pictures, student=student, out=tmp_path / "out")
    with pytest.raises(DistilvlError, match="no data is named"):
        distilvl.fit(student=student, out=tmp_path / "out")
    with pytest.raises(DistilvlError, match="both a teacher and a feature store"):
        distilvl.fit(data=pictures, teacher=teacher, features=run / "features", out=tmp_path / "out")
    with pytest.raises(DistilvlError, match=r"student\.folder is of distilvl train"):
        distilvl.fit(data=pictures, features=run / "features", student=run, out=tmp_path / "out")


def test_too_few_items_are_an_error(pictures: Path, student: str, run: Path, tmp_path: Path) -> None:
    few = load_dataset(pictures).split("train")
    few = few.only(few.records[:12])
    with pytest.raises(DistilvlError, match="12 items are too few"):
        distilvl.fit(data=few, features=run / "features", student=student, out=tmp_path / "out", overrides=PLAIN)


def test_the_teacher_is_not_asked_by_a_student_that_cannot_be_built(
    pictures: Path, teacher: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("image: {model: ./nowhere}\ntext: {kind: static}\n", encoding="utf-8")
    with pytest.raises(DistilvlError, match="nowhere"):
        distilvl.fit(data=pictures, teacher=teacher, student=tmp_path / "bad.yaml", out=tmp_path / "out")
    assert not (tmp_path / "out" / "features" / MANIFEST_NAME).exists()


def test_each_command_says_of_the_others_configuration_whose_it_is(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="distilvl fit"):
        load_config(str(run / "config.yaml"))
    trained = tmp_path / "config.yaml"
    trained.write_text(yaml.safe_dump(load_config("paper").model_dump(mode="json")), encoding="utf-8")
    with pytest.raises(DistilvlError, match="distilvl train"):
        load_fit_config(str(trained))


def test_copies_of_an_image_are_on_the_same_side() -> None:
    keys = [bytes([k]) * 32 for k in range(256)]
    half = Pass(None, None, None, 0.5, 0.5, mirror=False)  # type: ignore[arg-type]
    held = half.are_held_out(keys)
    assert held.tolist() == [k < 128 for k in range(256)]
    assert (half.are_held_out(keys[::-1]) == held[::-1]).all()


def test_a_student_that_was_fitted_is_trained_on(run: Path, pictures: Path, tmp_path: Path) -> None:
    short = ["training.epochs=1", "training.batch_size=16", "optimizer.lr=1e-6"]
    trained = distilvl.train(
        features=run / "features", data=pictures, student=run, out=tmp_path / "on", overrides=short
    )
    before = load_student(run).encode(["a red box on the left"])
    np.testing.assert_allclose(trained.encode(["a red box on the left"]), before, atol=0.05)
    assert isinstance(build_student(str(run), 12), SentenceTransformer)
