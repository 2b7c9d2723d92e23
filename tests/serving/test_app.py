"""`/v1/embeddings` as its clients see it, over loopback."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distilvl.models import Encoder, load_encoder
from distilvl.recipes import load_config
from distilvl.students import save_student
from distilvl.students.build import build_student
from distilvl.students.folder import save_dims

ToUri = Callable[..., str]


def test_rows_are_the_models_in_the_order_asked(served: Any, pictures: list[Image.Image], to_uri: ToUri) -> None:
    texts = [f"text {k}" for k in range(40)]
    np.testing.assert_array_equal(served.rows(texts).astype(np.float32), served.encoder.encode_texts(texts))
    np.testing.assert_array_equal(served.rows("text 7")[0].astype(np.float32), served.encoder.encode_texts(texts)[7])
    sent = served.rows([to_uri(picture) for picture in pictures]).astype(np.float32)
    np.testing.assert_array_equal(sent, served.encoder.encode_images(pictures))


def test_the_answer_has_openais_shape(served: Any) -> None:
    answer = served.embed(["a", "b"]).json()
    assert (answer["object"], answer["model"], set(answer["usage"])) == (
        "list",
        "tiny",
        {"prompt_tokens", "total_tokens"},
    )
    assert [(e["object"], e["index"]) for e in answer["data"]] == [("embedding", 0), ("embedding", 1)]


@pytest.mark.parametrize("field", ["encoding_format", "embedding_type"])
def test_base64_holds_the_same_numbers(served: Any, field: str) -> None:
    [entry] = served.embed("abc", **{field: "base64"}).json()["data"]
    row = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
    np.testing.assert_array_equal(row, served.rows("abc")[0].astype(np.float32))


def test_every_dialects_way_of_writing_an_item(served: Any, pictures: list[Image.Image], to_uri: ToUri) -> None:
    uri = to_uri(pictures[0])
    image, text = served.encoder.encode_images(pictures[:1])[0], served.encoder.encode_texts(["abc"])[0]
    mixed = served.rows(
        [
            uri,
            {"image": uri},
            {"type": "image_url", "image_url": {"url": uri}},
            {"image_url": uri},
            "abc",
            {"text": "abc"},
            {"type": "text", "text": "abc"},
        ]
    )
    np.testing.assert_allclose(mixed, [image] * 4 + [text] * 3, atol=1e-7)
    np.testing.assert_allclose(served.rows([uri], modality="image"), [image], atol=1e-7)
    as_text = served.encoder.encode_texts([uri])
    np.testing.assert_allclose(served.rows([uri], modality="text"), as_text, atol=1e-7)
    for content, row in (("abc", text), ([{"type": "image_url", "image_url": {"url": uri}}], image)):
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        answer = served.client.post("/v1/embeddings", json=body).json()
        np.testing.assert_allclose(answer["data"][0]["embedding"], row, atol=1e-7)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF"])
def test_formats_of_pictures(served: Any, to_uri: ToUri, kind: str) -> None:
    assert served.rows(to_uri(Image.new("RGB", (30, 20), "teal"), kind)).shape == (1, 16)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([], "batch_size"),
        (["x"] * 257, "batch_size"),
        (None, "invalid_value"),
        ([1, 2, 3], "tokens_not_supported"),
        ([[1, 2], [3]], "tokens_not_supported"),
        ([None], "invalid_value"),
        ([1.5], "invalid_value"),
        ({"text": 1}, "invalid_value"),
        ({"text": "a", "image": "b"}, "invalid_value"),
        ({"type": "audio", "text": "a"}, "invalid_value"),
        ("a" * 100_001, "text_too_long"),
        ("data:image/png;base64,!!!!", "invalid_image"),
        ("data:image/png;base64,AAAA", "invalid_image"),
        ("data:image/png,AAAA", "invalid_image"),
        ({"image": "https://example.org/a.png"}, "invalid_image"),
        ({"image": ""}, "invalid_image"),
        ({"image_url": {"url": None}}, "invalid_value"),
    ],
    ids=str,
)
def test_bad_items_are_refused_by_name(served: Any, value: Any, code: str) -> None:
    error = served.refusal(served.embed(value), 422)
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith("input")


def test_half_a_surrogate_pair_is_refused(served: Any) -> None:
    body = b'{"model": "tiny", "input": ["fine", "\\ud800"]}'
    answer = served.client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert served.refusal(answer, 422)["param"] == "input[1]"


def test_the_place_of_a_bad_picture_is_told(served: Any, pictures: list[Image.Image], to_uri: ToUri) -> None:
    good = to_uri(pictures[0])
    damaged = good[: len(good) * 3 // 4 // 4 * 4]
    error = served.refusal(served.embed(["a", good, damaged.rstrip("=")]), 422)
    assert error["param"] == "input[2]"
    assert "skip-bad" not in error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "abc",
        [{"role": "user"}],
        [{"content": "a"}, {"content": "b"}],
        [{"content": [{"text": "a"}, {"text": "b"}]}],
        [1],
    ],
    ids=str,
)
def test_a_conversation_is_refused(served: Any, messages: Any) -> None:
    answer = served.client.post("/v1/embeddings", json={"model": "tiny", "messages": messages})
    assert served.refusal(answer, 422)["param"] == "messages"


def test_another_model_is_not_found(served: Any) -> None:
    answer = served.client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "a"})
    error = served.refusal(answer, 404)
    assert error["code"] == "model_not_found"
    assert "'tiny'" in error["message"]
    assert served.client.get("/v1/models/tiny").json()["id"] == "tiny"
    served.refusal(served.client.get("/v1/models/other"), 404)


def test_width_is_the_models_own(served: Any) -> None:
    assert served.rows("a", dimensions=16).shape == (1, 16)
    assert "16" in served.refusal(served.embed("a", dimensions=8), 422)["message"]


def test_a_matryoshka_student_gives_its_other_widths(serve_model: Any, student_yaml: Path, tmp_path: Path) -> None:
    student = build_student(load_config("default", student=str(student_yaml)).student, 16, ["a dog", "a house"])
    save_student(student, tmp_path / "tiny")
    save_dims([8, 4], tmp_path / "tiny")
    with serve_model(load_encoder(tmp_path / "tiny"), None) as served:
        whole, short = served.rows("a dog"), served.rows("a dog", dimensions=4)
        np.testing.assert_allclose(short, whole[:, :4] / np.linalg.norm(whole[:, :4]), atol=1e-6)
        assert served.rows("a dog", dimensions=16).shape == (1, 16)
        assert "4 or 8 or 16" in served.refusal(served.embed("a dog", dimensions=5), 422)["message"]


def test_requests_of_many_clients_are_joined(serve: Any) -> None:
    served = serve(max_batch=64, max_wait_ms=500)
    asked = [[f"{k}/{j}" for j in range(1 + k % 3)] for k in range(24)]
    count = sum(map(len, asked))
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(served.rows, asked))
    for texts, rows in zip(asked, found, strict=True):
        np.testing.assert_array_equal(rows.astype(np.float32), Encoder(served.model).encode_texts(texts))
    batches = [size for _, size in served.model.batches[: -len(asked)]]
    assert sum(batches) == count
    assert len(batches) <= 4
    assert served.metric("distilvl_batch_items_count", modality="text") == len(batches)
    assert served.metric("distilvl_batch_items_sum", modality="text") == count


def test_one_thread_owns_the_model(serve: Any, pictures: list[Image.Image], to_uri: ToUri) -> None:
    served = serve()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(served.rows, [to_uri(pictures[0]), "a", "b", to_uri(pictures[1])] * 4))
    assert served.model.threads == {"encoder"}
    assert threading.current_thread().name not in served.model.threads


def test_a_bad_item_fails_its_own_request_only(serve: Any) -> None:
    served = serve(max_wait_ms=300)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(served.embed, ["a", ["b", "poison"], "c", ["d", "e"], "f"]))
    assert [answer.status_code for answer in answers] == [200, 500, 200, 200, 200]
    assert served.model.batches[0] == ("text", 7)
    error = answers[1].json()["error"]
    assert (error["param"], error["type"]) == ("input[1]", "server_error")
    assert "cannot take it" not in error["message"]


def test_metrics_count_by_route_and_status(serve: Any) -> None:
    served = serve()
    served.embed("a")
    served.embed([])
    for path in ("/a", "/b/c"):
        served.client.get(path)
    count = {"method": "POST", "route": "/v1/embeddings"}
    assert served.metric("distilvl_requests_total", **count, status="200") == 1
    assert served.metric("distilvl_requests_total", **count, status="422") == 1
    assert served.metric("distilvl_requests_total", method="GET", route="other", status="404") == 2
    assert served.metric("distilvl_request_seconds_count", route="/v1/embeddings") == 2
    assert served.metric("distilvl_items_waiting") == 0
    assert served.metric("process_resident_memory_bytes") > 1e7


def test_health_and_what_is_not_there(served: Any) -> None:
    assert served.client.get("/healthz").json() == {"status": "ok", "model": "tiny"}
    served.refusal(served.client.get("/search?q=a"), 404)
    served.refusal(served.client.get("/"), 404)
    served.refusal(served.client.get("/v1/embeddings"), 405)
    served.refusal(served.client.get("/docs"), 404)


def test_the_openai_client_talks_to_it_unchanged(served: Any) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        answer = client.embeddings.create(model="tiny", input=["a dog", "a cat"])
        rows = np.array([entry.embedding for entry in answer.data], np.float32)
        np.testing.assert_array_equal(rows, served.encoder.encode_texts(["a dog", "a cat"]))
        plain = client.embeddings.create(model="tiny", input="a dog", encoding_format="float", dimensions=16)
        np.testing.assert_array_equal(np.float32(plain.data[0].embedding), rows[0])
        with pytest.raises(openai.NotFoundError, match="one model"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.UnprocessableEntityError, match="token numbers"):
            client.embeddings.create(model="tiny", input=[[1, 2]])


@pytest.mark.parametrize("dialect", ["openai", "vllm", "infinity", "jina"])
def test_a_served_student_is_a_teacher(serve: Any, dialect: str, pictures: list[Image.Image]) -> None:
    pytest.importorskip("tenacity")
    from distilvl.models import load_teacher

    served = serve()
    teacher = load_teacher(f"{dialect}+{served.url}/v1?model=tiny&dim=16&retries=0")
    texts = ["", "a dog", "data:image/png;base64,no picture"] if dialect in ("infinity", "jina") else ["", "a dog"]
    np.testing.assert_array_equal(teacher.encode_texts(texts), served.encoder.encode_texts(texts))
    np.testing.assert_array_equal(teacher.encode_images(pictures), served.encoder.encode_images(pictures))


def test_features_of_a_served_student_are_stored(
    serve: Any, tmp_path: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tenacity")
    from distilvl.data import load_dataset
    from distilvl.extraction import extract_features

    served = serve(api_key="right-key")
    monkeypatch.setenv("OPENAI_API_KEY", "right-key")
    lines = []
    for k, picture in enumerate(pictures):
        picture.save(tmp_path / f"{k}.png")
        lines.append(f'{{"image": "{k}.png", "captions": ["caption {k}"], "split": "train"}}\n')
    (tmp_path / "captions.jsonl").write_text("".join(lines), encoding="utf-8")
    report = extract_features(f"openai+{served.url}/v1?model=tiny&dim=16", load_dataset(tmp_path), tmp_path / "store")
    assert (report.extracted_images, report.extracted_texts) == (5, 5)
