"""A real embedding server on loopback that counts what it is paid for, and a proxy before it that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distilvl.data.records import FileImage, PairDataset, Record

FAULTS = ("429", "500", "half", "width", "nan", "cut", "silence", "ok")


class Loopback(ABC):
    """An HTTP server on a free port of 127.0.0.1; subclasses say what a POST is answered."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with owner.lock:
                    owner.requests.append((self.path, dict(self.headers), json.loads(body)))
                owner.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that hung up is what some tests are about."""

        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @abstractmethod
    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Reply to one request."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def send(handler: BaseHTTPRequestHandler, value: object, status: int = 200, **headers: str) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    for name, text in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), text)
    handler.end_headers()
    handler.wfile.write(data)


class Projection:
    """A model small enough for a busy machine: pixels and letters through fixed random projections, item by item."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.pixels, self.letters = random.normal(size=(49, 128)), random.normal(size=(257, 128))

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        small = [np.asarray(image.resize((4, 4)), dtype=np.float64).ravel() / 255 for image in images]
        return np.stack([np.append(pixels, 1.0) @ self.pixels for pixels in small])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        counts = [np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=257) for text in texts]
        return np.stack([(count + np.eye(257)[256]) @ self.letters for count in counts])


class EmbeddingServer(Loopback):
    """`Projection` behind the APIs of all dialects; `paid` counts every text and image it computed."""

    def __init__(self, key: str | None = None) -> None:
        self.model, self.key = Projection(), key
        self.paid: Counter[str] = Counter()
        self.poison: str | None = None
        super().__init__()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        sent = handler.headers.get("Authorization")
        if self.key is not None and sent != f"Bearer {self.key}":
            send(handler, {"error": f"bad key {sent}"}, 401)
            return
        asked = json.loads(body)
        items = read_items(asked)
        if self.poison in items:
            send(handler, {"error": f"cannot take {self.poison}"}, 400)
            return
        with self.lock:
            self.paid.update(hashlib.sha256(item.encode()).hexdigest() for item in items)
            rows = self.rows(items).tolist()
        if handler.path.endswith("/v2/embed"):
            send(handler, {"embeddings": {"float": rows}})
            return
        answers = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
        send(handler, {"data": answers[::-1], "usage": {"total_tokens": 7}})

    def rows(self, items: Sequence[str]) -> np.ndarray:
        if items[0].startswith("data:"):
            return self.model.encode_images([picture_of(item) for item in items])
        return self.model.encode_texts(items)


def picture_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def read_items(asked: dict[str, Any]) -> list[str]:
    """Texts or data URIs of a request in any dialect, read as their references describe them."""
    if "messages" in asked:
        return [part["image_url"]["url"] for part in asked["messages"][0]["content"]]
    if "inputs" in asked:
        contents = [entry["content"][0] for entry in asked["inputs"]]
        return [content[content["type"]] for content in contents]
    for name in ("texts", "images"):
        if name in asked:
            return list(asked[name])
    return [entry if isinstance(entry, str) else next(iter(entry.values())) for entry in asked["input"]]


class FaultyProxy(Loopback):
    """Before `target`; every new request meets one of `faults` after the other until one lets it through.

    Nothing that it spoils on its own account reaches the target: only `half` and `ok` do, and `half` passes on no
    more than it answers. So what the target counts, and `passed`, is what a provider would charge. After `silences`
    of them silence becomes a 500, since each one costs the test a whole timeout.
    """

    def __init__(self, target: str, faults: Sequence[str] = FAULTS, silence_s: float = 6.0, silences: int = 2) -> None:
        self.target, self.faults, self.silence_s, self.silences = target, faults, silence_s, silences
        self.met: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self._tries: Counter[bytes] = Counter()
        super().__init__()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = json.loads(body)
        items = read_items(asked)
        with self.lock:
            digest = hashlib.sha256(body).digest()
            fault = self.faults[(digest[0] + self._tries[digest]) % len(self.faults)]
            self._tries[digest] += 1
            if fault == "silence" and self.met[fault] >= self.silences:
                fault = "500"
            self.met[fault] += 1
        if fault == "429":
            send(handler, {"error": "slow down"}, 429, Retry_After="0.05")
        elif fault == "500":
            send(handler, b"oops", 500)
        elif fault == "silence":
            time.sleep(self.silence_s)
        elif fault == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"data": [{"index": 0, "embed')
        elif fault == "width":
            send(handler, {"data": [{"index": k, "embedding": [0.5] * 3} for k in range(len(items))]})
        elif fault == "nan":
            send(handler, {"data": [{"index": k, "embedding": [float("nan")] * 128} for k in range(len(items))]})
        elif fault == "half":
            asked["input"] = asked["input"][: (len(items) + 1) // 2]
            send(handler, self._forwarded(handler, json.dumps(asked).encode()))
        else:
            send(handler, self._forwarded(handler, body))

    def _forwarded(self, handler: BaseHTTPRequestHandler, body: bytes) -> bytes:
        with self.lock:
            self.passed.update(read_items(json.loads(body)))
        request = urllib.request.Request(self.target + handler.path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            data: bytes = reply.read()
        return data


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    running = EmbeddingServer()
    yield running
    running.close()


@pytest.fixture
def guarded() -> Iterator[EmbeddingServer]:
    """Takes requests with the key `sk-sesame` only, and repeats a wrong key in its answer, as some servers do."""
    running = EmbeddingServer(key="sk-sesame")
    yield running
    running.close()


@pytest.fixture
def faulty(server: EmbeddingServer) -> Iterator[FaultyProxy]:
    running = FaultyProxy(server.url)
    yield running
    running.close()


@pytest.fixture
def photos(tmp_path: Path) -> PairDataset:
    """40 pictures of noise with two captions each, all different."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    records = []
    for k in range(40):
        path = folder / f"{k:02d}.png"
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        records.append(Record(f"{k:02d}", FileImage(str(path)), (f"red box {k}", f"a blue ball {k}"), "train"))
    return PairDataset("photos", tuple(records))
