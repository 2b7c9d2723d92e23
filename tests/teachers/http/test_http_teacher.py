from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.extraction import estimate_features, extract_features
from distilvl.features import FeatureStore
from distilvl.pictures import decode_image
from distilvl.teachers.base import PiecewiseTeacher, Teacher, UnansweredError
from distilvl.teachers.http import DIALECTS, HttpTeacher


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def spec(url: str, dialect: str = "infinity", **options: object) -> str:
    more = {"model": "demo", "dim": 128, "backoff": 0.01, "timeout": 30, **options}
    path = "/v2" if dialect == "cohere" else "/v1"
    return f"{dialect}+{url}{path}?" + "&".join(f"{name}={value}" for name, value in more.items())


def pictures(photos: PairDataset) -> list:
    return [decode_image(record.image.read(), "x") for record in photos]


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_dialect_gives_the_models_own_rows(server, photos: PairDataset, dialect: str):
    teacher = HttpTeacher.from_spec(spec(server.url, dialect))
    assert isinstance(teacher, Teacher)
    assert isinstance(teacher, PiecewiseTeacher)
    images, texts = pictures(photos)[:5], photos.captions[:7]
    np.testing.assert_allclose(teacher.encode_images(images), server.model.encode_images(images), rtol=1e-6)
    np.testing.assert_allclose(teacher.encode_texts(texts), server.model.encode_texts(texts), rtol=1e-6)
    assert set(server.paid.values()) == {1}
    assert len(server.paid) == 12


def test_behind_a_proxy_that_misbehaves_the_store_is_the_same_and_each_item_is_paid_once(
    server, faulty, photos: PairDataset, tmp_path: Path
):
    plain = HttpTeacher.from_spec(spec(server.url))
    extract_features(plain, photos, tmp_path / "plain", shard_size=16)
    server.paid.clear()
    teacher = HttpTeacher.from_spec(spec(faulty.url, batch=5, concurrency=4, timeout=5))
    report = extract_features(teacher, photos, tmp_path / "faulty", shard_size=16)
    assert (report.extracted_images, report.extracted_texts) == (40, 80)
    assert files_of(tmp_path / "faulty") == files_of(tmp_path / "plain")
    assert report.store.verify().images == 40
    assert len(server.paid) == 120
    assert set(server.paid.values()) == {1}
    assert set(faulty.met) == set(faulty.faults)


RUN = """
import sys
from pathlib import Path
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.extraction import extract_features
from distilvl.extraction.extract import extract_features
from distilvl.teachers.http import HttpTeacher

paths = sorted(Path(sys.argv[1]).glob("*.png"))
texts = [(f"red box {k}", f"a blue ball {k}") for k in range(len(paths))]
records = [Record(p.stem, FileImage(str(p)), t, "train") for p, t in zip(paths, texts)]
extract_features(HttpTeacher.from_spec(sys.argv[2]), PairDataset("p", tuple(records)), sys.argv[3], shard_size=16)
"""


def test_a_killed_run_asks_only_for_what_has_not_arrived(server, photos: PairDataset, tmp_path: Path):
    folder, killed = Path(photos[0].image.name).parent, tmp_path / "killed"
    # One request at a time, slowed down by the limit of 600 a minute: at most one answer is on its way at the kill.
    slow = spec(server.url, batch=3, concurrency=1, rpm=600)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder), slow, str(killed)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(killed.glob(".answer-image-*"))) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    arrived = [path for path in killed.glob(".answer-*") if not path.name.startswith(".partial")]
    assert 4 <= len(arrived) <= 6
    quick = HttpTeacher.from_spec(spec(server.url, batch=4))
    report = extract_features(quick, photos, killed, shard_size=16)
    assert report.extracted_images == 40 - 3 * len(arrived)
    assert sum(count > 1 for count in server.paid.values()) <= 3
    extract_features(quick, photos, tmp_path / "whole", shard_size=16)
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_one_refused_item_costs_its_neighbours_nothing(server, photos: PairDataset, tmp_path: Path):
    teacher = HttpTeacher.from_spec(spec(server.url, batch=8))
    server.poison = "red box 11"
    with pytest.raises(DistilvlError, match=r"no features for 'red box 11': the server does not take it.*400"):
        extract_features(teacher, photos, tmp_path / "store")
    assert len(server.paid) == 119
    server.poison = None
    report = extract_features(teacher, photos, tmp_path / "store")
    assert (report.extracted_images, report.extracted_texts) == (0, 1)
    assert set(server.paid.values()) == {1}
    assert not list(report.store.path.glob(".*"))


def test_refused_images_are_left_out_on_request(server, photos: PairDataset, tmp_path: Path):
    teacher = HttpTeacher.from_spec(spec(server.url, batch=8))
    server.poison = teacher._data_uri(pictures(photos)[3])
    with pytest.raises(DistilvlError, match=r"03\.png.*--skip-bad"):
        extract_features(teacher, photos, tmp_path / "store")
    report = extract_features(teacher, photos, tmp_path / "store", skip_bad=True)
    assert [Path(name).name for name in report.skipped] == ["03.png"]
    assert report.store.counts == {"image": 39, "text": 80}
    assert set(server.paid.values()) == {1}


def test_a_server_that_takes_nothing_is_not_asked_for_every_item(server, photos: PairDataset):
    teacher = HttpTeacher.from_spec(spec(server.url, batch=1, concurrency=1))
    server.answer = lambda handler, body: handler.send_error(400, "no such model")
    with pytest.raises(UnansweredError, match=r"has taken nothing yet .*model's name") as caught:
        teacher.encode_texts(photos.captions)
    assert (caught.value.positions, caught.value.refused, len(server.requests)) == ([0, 1, 2], False, 3)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_bad_items_may_come_first(server, photos: PairDataset, tmp_path: Path, concurrency: int):
    teacher = HttpTeacher.from_spec(spec(server.url, batch=1, concurrency=concurrency))
    server.poison = teacher._data_uri(pictures(photos)[0])
    report = extract_features(teacher, photos, tmp_path / "store", skip_bad=True)
    assert [Path(name).name for name in report.skipped] == ["00.png"]
    assert report.store.counts == {"image": 39, "text": 80}


@pytest.mark.parametrize(
    ("fault", "words", "tries"),
    [
        ("width", r"cannot be used, 3 times in a row: an embedding has dimension 3, not 128.*dim=", 3),
        ("nan", r"not finite", 3),
        ("429", "status 429.*slow down.*Run the same command again", 4),
        ("500", "status 500, 'oops'", 4),
        ("silence", r"no reply within 0\.2 s", 4),
    ],
)
def test_trouble_that_stays_is_named(server, fault: str, words: str, tries: int, request):
    from contextlib import closing

    proxy_class = type(request.getfixturevalue("faulty"))
    with closing(proxy_class(server.url, [fault], silence_s=0.5, silences=9)) as proxy:
        teacher = HttpTeacher.from_spec(spec(proxy.url, retries=3, timeout=0.2))
        with pytest.raises(UnansweredError, match=words):
            teacher.encode_texts(["a red box"])
    assert proxy.met == {fault: tries}
    assert not server.paid


def test_no_server_is_found_out_soon(server):
    server.close()
    teacher = HttpTeacher.from_spec(spec(server.url))
    with pytest.raises(UnansweredError, match="no connection"):
        teacher.encode_texts(["a red box"])


def test_wrong_address(server):
    teacher = HttpTeacher.from_spec(spec(server.url, "openai"))
    server.answer = lambda handler, body: handler.send_error(404, "no such model")
    with pytest.raises(DistilvlError, match=r"takes no requests for 'demo' \(status 404.*model's name"):
        teacher.encode_texts(["a red box"])


def test_the_key_is_sent_and_nothing_else_knows_it(guarded, photos: PairDataset, tmp_path, monkeypatch, caplog):
    address = spec(guarded.url, "openai", key_env="MY_KEY")
    with pytest.raises(DistilvlError, match="variable MY_KEY is not set"):
        HttpTeacher.from_spec(address)
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    with pytest.raises(DistilvlError, match="refuses the key in MY_KEY") as caught:
        HttpTeacher.from_spec(address).encode_texts(["a red box"])
    assert "sk-wrong" not in str(caught.value)
    assert "***" in str(caught.value)
    monkeypatch.setenv("MY_KEY", "sk-sesame\n")
    with caplog.at_level(logging.DEBUG):
        teacher = HttpTeacher.from_spec(address)
        report = extract_features(teacher, photos, tmp_path / "store")
    assert "sesame" not in caplog.text
    assert "sesame" not in json.dumps(report.store.manifest.__dict__) + repr(teacher) + repr(teacher.settings)
    assert not any(b"sesame" in data for data in files_of(report.store.path).values())
    monkeypatch.setenv("MY_KEY", "sk\nsesame")
    with pytest.raises(DistilvlError, match="holds characters that no key has") as caught:
        HttpTeacher.from_spec(address)
    assert "sesame" not in str(caught.value)


def test_a_server_that_wants_a_key(guarded, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(DistilvlError, match="wants a key, and OPENAI_API_KEY is not set"):
        HttpTeacher.from_spec(spec(guarded.url, "openai")).encode_texts(["a red box"])


def test_estimate_is_told_before_the_first_request(server, photos: PairDataset, tmp_path: Path, caplog):
    teacher = HttpTeacher.from_spec(spec(server.url, price=2, image_price=50))
    server.answer = lambda handler, body: handler.send_error(404, "no such model")
    with caplog.at_level(logging.INFO, "distilvl"), pytest.raises(DistilvlError):
        extract_features(teacher, photos, tmp_path / "store")
    assert "4 requests for 40 images and 80 captions" in caplog.text
    assert len(server.requests) >= 1


def test_estimate_alone_asks_and_writes_nothing(server, photos: PairDataset, tmp_path: Path):
    line = estimate_features(spec(server.url, price=2, image_price=50), photos, tmp_path / "store")
    assert "4 requests for 40 images and 80 captions" in line
    assert not server.requests
    assert not (tmp_path / "store").exists()
    half = PairDataset("half", photos.records[:20])
    extract_features(HttpTeacher.from_spec(spec(server.url)), half, tmp_path / "store")
    assert "for 20 images and 40 captions" in estimate_features(spec(server.url), photos, tmp_path / "store")


def test_manifest(server, photos: PairDataset, tmp_path: Path):
    teacher = HttpTeacher.from_spec(spec(server.url, revision="2026-01", image_format="jpeg", max_side=6))
    store = extract_features(teacher, photos, tmp_path / "store").store
    manifest = FeatureStore.open(store.path).manifest
    assert (manifest.teacher, manifest.revision, manifest.dim) == ("demo", "2026-01", 128)
    assert manifest.preprocessing == "images as JPEG, at most 6 pixels a side, by the infinity API"
    assert server.url not in json.dumps(manifest.__dict__)
