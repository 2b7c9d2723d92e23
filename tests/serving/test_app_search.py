"""`/search` and the page's files, over a real index of drawn scenes."""

from __future__ import annotations

import io
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lancedb")

from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore, Manifest, image_key
from distilvl.models.encoder import Encoder
from distilvl.search import Index


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of noise in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(1)
    for k in range(12):
        place = folder / ("old" if k < 4 else "new")
        place.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save(place / f"{k:02d}.png")
    return folder


@pytest.fixture
def served(serve: Any, folder: Path, tmp_path: Path) -> Any:
    def make(encoder: Encoder) -> Index:
        index = Index.create(tmp_path / "index", encoder)
        index.update(folder)
        return Index.open(tmp_path / "index", model=encoder)

    server = serve(make, max_wait_ms=1)
    server.index = Index.open(tmp_path / "index", model=server.encoder)
    return server


def find(served: Any, **question: Any) -> Any:
    answer = served.client.post("/search", json=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_answers_are_the_indexs(served: Any, folder: Path, to_uri: Any) -> None:
    picture = Image.open(folder / "new" / "07.png")
    for question, own in (
        ({"text": "a dog"}, {"text": "a dog"}),
        ({"image": to_uri(picture)}, {"image": picture}),
        ({"text": "a dog", "image": to_uri(picture)}, {"text": "a dog", "image": picture}),
        ({"text": "  a dog ", "top": 3, "folder": "old"}, {"text": "a dog", "top": 3, "folder": "old"}),
        ({"text": "a dog", "minus": "a cat"}, {"text": "a dog", "minus": "a cat"}),
        ({"text": "a dog", "since": "2000", "until": "2001"}, {"text": "a dog", "since": "2000", "until": "2001"}),
    ):
        answer = find(served, **question)
        wanted = served.index.search(**own)
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in wanted]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
        assert answer["photos"] == 12


def test_similar_pictures_and_their_thumbnails(served: Any, folder: Path, to_uri: Any) -> None:
    [hit] = find(served, image=to_uri(Image.open(folder / "old" / "02.png")), top=1)["hits"]
    assert hit["path"].endswith("old/02.png")
    similar = find(served, like=hit["id"], top=200)["hits"]
    assert len(similar) == 11
    assert hit["id"] not in [other["id"] for other in similar]
    answer = served.client.get(hit["thumbnail"])
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert Image.open(io.BytesIO(answer.content)).size == (30, 20)


def test_by_address(served: Any) -> None:
    answer = served.client.get("/search", params={"q": "a dog", "top": 2}).json()
    assert answer == find(served, text="a dog", top=2)


def test_copies_are_one_answer_with_their_paths(serve: Any, folder: Path, tmp_path: Path, to_uri: Any) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(folder, photos)
    for k in range(30):
        shutil.copy(photos / "new" / "05.png", photos / "old" / f"copy{k:02d}.png")

    def make(encoder: Encoder) -> Index:
        index = Index.create(tmp_path / "copied", encoder)
        index.update(photos)
        return index

    server = serve(make, max_wait_ms=1)
    image = to_uri(Image.open(photos / "new" / "05.png"))
    answer = find(server, image=image, top=10)
    assert [hit["copies"] for hit in answer["hits"]] == [31] + [1] * 9
    assert answer["hits"][0]["paths"][0] == answer["hits"][0]["path"] == (photos / "new" / "05.png").as_posix()
    assert len(answer["hits"][0]["paths"]) == 31
    assert answer["photos"] == 42
    [narrowed] = find(server, image=image, top=1, folder="old")["hits"]
    assert narrowed["copies"] == 30
    every = find(server, image=image, top=31, copies=True)["hits"]
    assert {hit["id"] for hit in every} == {answer["hits"][0]["id"]}
    assert {hit["copies"] for hit in every} == {1}


def test_queries_of_several_clients_are_one_batch(serve: Any, served: Any, tmp_path: Path) -> None:
    slow = serve(lambda encoder: Index.open(tmp_path / "index", model=encoder), max_wait_ms=1000, max_batch=16)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda k: find(slow, text=f"query {k}"), range(16)))
    assert len({answer["hits"][0]["score"] for answer in answers}) > 8
    assert slow.model.batches == [("text", 16)]


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"text": "   "},
        {"text": 3},
        {"text": "a", "top": 0},
        {"text": "a", "top": 201},
        {"text": "a", "since": "yesterday"},
        {"text": "a", "folder": "../etc"},
        {"text": "a", "folder": "\0"},
        {"like": "' OR 1=1"},
        {"like": "0" * 32},
        {"image": "data:image/png;base64,AAAA"},
        {"image": "/etc/passwd"},
        {"text": "a", "vector": [1.0]},
        {"text": "a" * 100_001},
    ],
    ids=lambda question: str(question)[:40],
)
def test_bad_questions(served: Any, question: dict[str, Any]) -> None:
    served.refusal(served.client.post("/search", json=question), 422)


def test_an_index_that_is_gone_is_told_without_its_insides(served: Any, tmp_path: Path) -> None:
    [hit] = find(served, text="a", top=1)["hits"]
    shutil.rmtree(tmp_path / "index" / "photos.lance")
    for answer in (
        served.client.post("/search", json={"text": "a dog"}),
        served.client.get(f"/search?like={hit['id']}"),
        served.client.get(f"/thumbnails/{hit['id']}"),
    ):
        error = served.refusal(answer, 503)
        assert error["code"] == "index_unavailable"
        assert not re.search(r"/|\.rs|lance", error["message"])
        assert int(answer.headers["Retry-After"]) >= 1
    assert served.client.get("/healthz").status_code == 200
    assert served.rows("a").shape == (1, 16)


def test_large_pictures_are_refused(serve: Any, served: Any, tmp_path: Path, to_uri: Any) -> None:
    strict = serve(lambda encoder: Index.open(tmp_path / "index", model=encoder), max_pixels=100)
    strict.refusal(strict.client.post("/search", json={"image": to_uri(Image.new("RGB", (11, 10)))}), 413)


def test_a_query_at_which_the_model_fails(served: Any) -> None:
    error = served.refusal(served.client.post("/search", json={"text": "poison"}), 500)
    assert error["code"] == "unencodable"


@pytest.mark.parametrize("key", ["0" * 32, "nothing", "..%2f..%2fetc%2fpasswd", "' OR 1=1"])
def test_thumbnails_that_are_not_there(served: Any, key: str) -> None:
    served.refusal(served.client.get(f"/thumbnails/{key}"), 404)


def test_the_page_and_its_files(served: Any) -> None:
    page = served.client.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "'unsafe" not in page.headers["Content-Security-Policy"]
    for name, kind in (("search.css", "text/css"), ("search.js", "javascript"), ("icon.svg", "image/svg+xml")):
        assert f"/page/{name}" in page.text
        assert kind in served.client.get(f"/page/{name}").headers["Content-Type"]
    assert "http" not in page.text.replace("http-equiv", "")
    served.refusal(served.client.get("/page/../run.py"), 404)
    served.refusal(served.client.get("/page/%2e%2e/run.py"), 404)


def test_with_a_key_the_page_is_open_and_the_pictures_are_not(serve: Any, served: Any, tmp_path: Path) -> None:
    [hit] = find(served, text="a dog", top=1)["hits"]
    locked = serve(lambda encoder: Index.open(tmp_path / "index", model=encoder), api_key="right-key")
    assert locked.client.get("/").status_code == 200
    assert locked.client.get("/page/search.js").status_code == 200
    for path in ("/search?q=a", hit["thumbnail"], "//search?q=a", "/page/../search?q=a", "/page/%2e%2e/search?q=a"):
        # By hand, for the client would tidy the path up.
        with socket.create_connection(("127.0.0.1", locked.port), 10) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert raw.recv(4096).split()[1] in (b"401", b"404"), path
    assert locked.client.get(hit["thumbnail"], headers={"Authorization": "Bearer right-key"}).status_code == 200


def test_an_index_of_another_model_is_not_served(serve: Any, served: Any, tmp_path: Path) -> None:
    def other(encoder: Encoder) -> Index:
        encoder.revision = "2"
        return Index.open(tmp_path / "index", model=encoder)

    with pytest.raises(DistilvlError, match="made with"):
        serve(other)


def test_an_index_with_a_teachers_embeddings_is_asked_in_the_models_words(
    serve: Any, folder: Path, tmp_path: Path
) -> None:
    random, pictures = np.random.default_rng(0), sorted(folder.rglob("*.png"))
    rows: dict[str, Any] = {}

    def make(encoder: Encoder) -> Index:
        store = FeatureStore.create(tmp_path / "store", Manifest(teacher="big", revision="1", dim=encoder.dim))
        keys = [image_key(path.read_bytes()) for path in pictures]
        store.add("image", keys, random.normal(size=(12, encoder.dim)))
        rows.update(zip([path.as_posix() for path in pictures], store.images(keys).astype(np.float32), strict=True))
        index = Index.create(tmp_path / "index", encoder, features=store.path)
        assert index.update(folder).encoded == 0
        return Index.open(tmp_path / "index", model=encoder)

    server = serve(make, max_wait_ms=1)
    query = server.encoder.encode_texts(["a dog"])[0]
    expected = {path: float(row @ query) / float(np.linalg.norm(row)) for path, row in rows.items()}
    found = {hit["path"]: hit["score"] for hit in find(server, text="a dog", top=12)["hits"]}
    assert found == pytest.approx(expected, abs=1e-5)
