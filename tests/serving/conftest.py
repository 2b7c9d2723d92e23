"""A real server on loopback around a model of a few numbers, which counts its batches."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
uvicorn = pytest.importorskip("uvicorn")
httpx2 = pytest.importorskip("httpx2")

from distilvl.models.encoder import Encoder
from distilvl.serving.app import create_app
from distilvl.serving.connection import server_config
from distilvl.serving.settings import ServeSettings


class Model:
    """Rows from a hash of the text, or from the picture's pixels; `batches` keeps the size of each call."""

    name, revision, dim = "tiny", "1", 16

    def __init__(self) -> None:
        self.batches: list[tuple[str, int]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self._call("image", len(images))
        assert all(image.mode == "RGB" for image in images)
        return np.stack([np.asarray(image.resize((4, 4)).convert("L"), np.float64).ravel() + 1 for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self._call("text", len(texts))
        if "poison" in texts:
            raise ValueError("cannot take it")
        digests = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
        return np.array([list(digest) for digest in digests], dtype=np.float64) - 127.5

    def _call(self, kind: str, count: int) -> None:
        self.batches.append((kind, count))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)


class Served:
    """A running server; `client` speaks to it."""

    def __init__(self, settings: ServeSettings, encoder: Encoder | None = None, **options: Any) -> None:
        self.model = Model()
        self.encoder = encoder or Encoder(self.model)
        app = create_app(self.encoder, settings, **options)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(server_config(app, settings))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        self.client = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def embed(self, value: Any, **fields: Any) -> Any:
        """The server's answer to a question for rows."""
        return self.client.post("/v1/embeddings", json={"model": "tiny", "input": value, **fields})

    def rows(self, value: Any, **fields: Any) -> np.ndarray:
        """The rows, in the order of their index."""
        answer = self.embed(value, **fields)
        assert answer.status_code == 200, answer.text
        return np.array([entry["embedding"] for entry in sorted(answer.json()["data"], key=lambda e: e["index"])])

    def refusal(self, answer: Any, status: int) -> dict[str, Any]:
        """The error of an answer with that status, in OpenAI's shape; the next good request must work."""
        assert answer.status_code == status, answer.text
        error: dict[str, Any] = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert self.rows("still there").shape == (1, 16)
        return error

    def metric(self, name: str, **labels: str) -> float:
        """A number of /metrics; 0 while it is not there."""
        wanted = name + (
            "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}" if labels else ""
        )
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(wanted + " "):
                return float(line.split()[-1])
        return 0.0

    def close(self) -> None:
        self.model.gate.set()
        self.client.close()
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(**settings)`: a server until the test ends."""
    running: list[Served] = []

    def start(open_index: Any = None, **settings: Any) -> Served:
        running.append(Served(ServeSettings(**settings), open_index=open_index))
        return running[-1]

    yield start
    for served in running:
        served.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One with the default limits."""
    server = Served(ServeSettings())
    yield server
    server.close()


@pytest.fixture(scope="session")
def serve_model() -> Callable[..., Any]:
    """`with serve_model(encoder, open_index, **settings) as served`: a server around a model that is not `Model`."""

    @contextmanager
    def start(encoder: Encoder, open_index: Any, **settings: Any) -> Iterator[Served]:
        served = Served(ServeSettings(**settings), encoder, open_index=open_index)
        try:
            yield served
        finally:
            served.close()

    return start


def uri_of(image: Image.Image, kind: str = "PNG") -> str:
    """A picture as clients send it."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Five different ones."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (12, 9 + k, 3), np.uint8)) for k in range(5)]


@pytest.fixture
def to_uri() -> Callable[..., str]:
    """`uri_of`, for test files, which cannot import this one."""
    return uri_of
