"""What must not get through: each is refused with the right status, and the next good request is answered."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

JSON = {"Content-Type": "application/json"}
GIGABYTE = 1_000_000_000


def post(served: Any, content: Any, **headers: str) -> Any:
    return served.client.post("/v1/embeddings", content=content, headers={**JSON, **headers})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": "tiny", "input": ', b"\xff\xfe", b"[" * 20, b'{"a": 1' + b"0" * 10_000 + b"}"],
    ids=["nothing", "open", "cut", "bytes", "brackets", "digits"],
)
def test_malformed_json(served: Any, body: bytes) -> None:
    error = served.refusal(post(served, body), 422 if body == b"" else 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b"[]", b'"a"', b"3", b"null", b'{"input": "a"}', b'{"model": 3, "input": "a"}'], ids=repr
)
def test_json_of_another_shape(served: Any, body: bytes) -> None:
    served.refusal(post(served, body), 422)


def test_a_form_is_not_json(served: Any) -> None:
    body = json.dumps({"model": "tiny", "input": "a"}).encode()
    served.refusal(served.client.post("/v1/embeddings", content=body, headers={"Content-Type": "text/plain"}), 422)


def test_a_declared_gigabyte_is_refused_at_its_header(served: Any) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % GIGABYTE)
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_who_asks_first_is_told_before_sending(served: Any) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        raw.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            % GIGABYTE
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def drip(sent: list[int]) -> Iterator[bytes]:
    piece = b'"' + b"x" * 99_999
    for _ in range(GIGABYTE // len(piece)):
        sent[0] += len(piece)
        yield piece


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_gigabyte_that_is_sent(serve: Any, declared: bool) -> None:
    served, sent = serve(), [0]
    before = served.metric("process_resident_memory_bytes")
    headers = {"Content-Length": str(GIGABYTE)} if declared else {}
    error = served.refusal(post(served, drip(sent), **headers), 413)
    assert "20,000,000 bytes" in error["message"]
    assert sent[0] < GIGABYTE
    assert served.metric("process_resident_memory_bytes") - before < 150e6


def test_a_body_of_very_many_lists_is_refused_before_it_is_parsed(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    monkeypatch.setattr(json, "loads", lambda text, **_: parsed.append(len(text)))
    answer = post(served, b'{"model":"tiny","input":[' + b"[]," * 100_000 + b"[]]}")
    monkeypatch.undo()
    assert "more than 100,000 values" in served.refusal(answer, 422)["message"]
    assert parsed == []


def test_a_body_of_just_the_limit_is_read(serve: Any) -> None:
    served = serve(max_upload_mb=0.001)
    body = json.dumps({"model": "tiny", "input": "a"}).encode().ljust(1_000)
    assert post(served, body).status_code == 200
    assert post(served, (body[k : k + 9] for k in range(0, 1_000, 9))).status_code == 200
    served.refusal(post(served, body + b" "), 413)
    served.refusal(post(served, (b"%s" % piece for piece in (body, b" "))), 413)


def bomb(side: int) -> str:
    """A PNG of side x side pixels, all black, in a few hundred kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "side", [8_000, 10_000, 14_000], ids=["above our limit", "above Pillow's", "above twice Pillow's"]
)
def test_a_decompression_bomb(serve: Any, side: int) -> None:
    served = serve()
    before = served.metric("process_resident_memory_bytes")
    error = served.refusal(served.embed(["a", bomb(side)]), 413)
    assert (error["code"], error["param"]) == ("too_many_pixels", "input[1]")
    assert served.model.batches == [("text", 1)]
    assert served.metric("process_resident_memory_bytes") - before < 60e6


def test_many_large_pictures_at_once_find_no_room(serve: Any, to_uri: Any) -> None:
    served = serve(max_pixels=10_000)
    uri = to_uri(Image.new("RGB", (100, 100)))
    assert served.rows([uri] * 4).shape == (4, 16)
    answer = served.embed([uri] * 5)
    assert served.refusal(answer, 503)["code"] == "overloaded"
    assert int(answer.headers["Retry-After"]) >= 1
    assert served.rows([uri] * 4).shape == (4, 16)


def test_a_client_that_drips_its_header(serve: Any) -> None:
    served = serve(read_timeout=0.5)
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        answer = dripped(raw, b"POST /v1/embeddings HTTP/1.1\r\nX-Long: " + b"a" * 1000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.4 < time.monotonic() - start < 5
    assert served.rows("still there").shape == (1, 16)


def test_a_client_that_drips_its_second_header(serve: Any) -> None:
    served = serve(read_timeout=0.5)
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.7)  # an idle connection is nobody's fault
        answer = dripped(raw, b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * 1000)
    assert b"HTTP/1.1 408 " in answer


def test_a_client_that_says_nothing(serve: Any) -> None:
    served = serve(read_timeout=0.3)
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        assert raw.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert raw.recv(4096) == b""


def test_a_client_that_drips_its_body(serve: Any) -> None:
    served = serve(read_timeout=0.5)
    with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
        raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        answer = dripped(raw, b'{"model": "tiny", "input": "' + b"a" * 972)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"slow_request"' in answer
    assert served.rows("still there").shape == (1, 16)


def dripped(raw: socket.socket, data: bytes) -> bytes:
    """Send a byte every 20 ms until the server has had enough; all that it said."""
    raw.settimeout(0.02)
    answer = b""
    for byte in data:
        try:
            raw.sendall(bytes([byte]))
        except OSError:
            break
        try:
            piece = raw.recv(4096)
        except TimeoutError:
            continue
        except OSError:
            break
        if not piece:
            break
        answer += piece
    return answer


def test_slow_clients_do_not_hold_up_others(serve: Any) -> None:
    served = serve(read_timeout=5)
    held = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(100)]
    try:
        for raw in held:
            raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        start = time.monotonic()
        assert served.rows("a").shape == (1, 16)
        assert time.monotonic() - start < 3
    finally:
        for raw in held:
            raw.close()


def test_a_model_that_takes_too_long(serve: Any) -> None:
    served = serve(request_timeout=0.3)
    served.model.gate.clear()
    answer = served.embed("a")
    served.model.gate.set()
    assert served.refusal(answer, 504)["code"] == "timeout"


def test_a_full_queue_turns_clients_away(serve: Any) -> None:
    served = serve(max_queue=4, max_items=4)
    served.model.gate.clear()
    threads = [threading.Thread(target=served.embed, args=(["a", "b"],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while served.metric("distilvl_items_waiting") < 4:
        time.sleep(0.01)
    answer = served.embed("c")
    served.model.gate.set()
    for thread in threads:
        thread.join()
    assert served.refusal(answer, 503)["type"] == "server_error"
    assert int(answer.headers["Retry-After"]) >= 1
    assert served.metric("distilvl_items_waiting") == 0


def test_who_lacks_the_key_cannot_upload(serve: Any) -> None:
    served, sent = serve(api_key="right-key"), [0]
    answer = post(served, drip(sent))
    assert answer.status_code == 401
    assert sent[0] < GIGABYTE


def test_our_own_mistake_is_told_as_such(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    monkeypatch.setattr("distilvl.serving.requests.read_items", lambda *_: 1 / 0)
    answer = served.embed("a secret")
    monkeypatch.undo()
    error = served.refusal(answer, 500)
    assert error["code"] == "internal_error"
    assert "secret" not in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (json.dumps({f"key{k}": 0 for k in range(150_000)}).encode(), "too_complex"),
        (b'{"model": "tiny", "input": [' + b"0," * 150_000 + b"0]}", "too_complex"),
        (b'{"model": "tiny", "input": ' + b"[" * 50 + b"]" * 50 + b"}", "too_complex"),
    ],
    ids=["keys", "numbers", "deep"],
)
def test_more_than_any_request_needs_is_refused_before_it_is_parsed(served: Any, body: bytes, code: str) -> None:
    assert served.refusal(post(served, body), 422)["code"] == code


def test_long_texts_with_any_signs_are_one_value_each(served: Any) -> None:
    text = '{"a": [1, 2], \\" } ' * 3000
    found = post(served, json.dumps({"model": "tiny", "input": [text, "a"]}).encode())
    assert found.status_code == 200


def test_a_length_beside_chunks_is_refused(served: Any) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
        connection.sendall(head + b"0\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
