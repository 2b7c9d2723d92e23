"""The real command, as a subprocess."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
httpx2 = pytest.importorskip("httpx2")

COMMAND = [sys.executable, "-m", "distilvl", "serve"]
TEACHER = '''
import time
import numpy as np

class Slow:
    """A second a batch."""
    name, revision, dim = "slow", "1", 4

    def encode_texts(self, texts):
        time.sleep(1)
        return np.array([[len(text), 1, 2, 3] for text in texts], float)

    def encode_images(self, images):
        return np.ones((len(images), 4))
'''


class Running:
    """The command, once it listens."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        teacher = folder / "slow_teacher.py"
        teacher.write_text(TEACHER, encoding="utf-8")
        self.process = subprocess.Popen(
            [*COMMAND, "--model", f"{teacher}:Slow", "--port", "0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.fullmatch(r"serving (\S+) at (http://\S+)\n", self.said)
        assert found is not None, self.said + self.process.stderr.read()
        self.name, self.url = found.groups()

    def embed(self, text: str, **headers: str) -> Any:
        body = {"model": self.name, "input": text}
        return httpx2.post(f"{self.url}/v1/embeddings", json=body, headers=headers, timeout=60, trust_env=False)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Running] = []

    def make(*arguments: str, **variables: str) -> Running:
        running.append(Running(tmp_path, *arguments, **variables))
        return running[-1]

    yield make
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_is_under_way(start: Any, number: int) -> None:
    running = start("--name", "mine")
    assert running.name == "mine"
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(running.embed("abc"))) for _ in range(3)]
    for thread in asking:
        thread.start()
    while 'requests_total{method="GET",route="/healthz"' not in httpx2.get(f"{running.url}/metrics").text:
        httpx2.get(f"{running.url}/healthz")
    while "distilvl_items_waiting 3.0" not in httpx2.get(f"{running.url}/metrics").text:
        assert any(thread.is_alive() for thread in asking), "answered before it was told to stop"
    code, said = running.stop(number)
    for thread in asking:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert (code, said) == (0, "")


@pytest.mark.slow
def test_the_key_is_asked_for_and_shows_nowhere(start: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n", encoding="utf-8")
    for running, key in (
        (start("--api-key-env", "MY_KEY", MY_KEY="from-the-environment"), "from-the-environment"),
        (start("--api-key-file", str(tmp_path / "key"), "--host", "0.0.0.0"), "from-a-file"),
    ):
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")
        assert running.embed("a").status_code == 401
        assert running.embed("a", Authorization="Bearer wrong").status_code == 401
        assert running.embed("a", Authorization=f"Bearer {key}").status_code == 200
        code, said = running.stop()
        assert code == 0
        assert key not in running.said + said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --model, --index, or both"),
        (["--model", "demo", "--host", "0.0.0.0"], "--api-key-env"),
        (["--model", "demo", "--api-key-env", "NOT_SET_AT_ALL"], "NOT_SET_AT_ALL is not set"),
        (["--model", "demo", "--api-key-file", "no/such/file"], "no/such/file"),
        (["--model", "demo", "--max-items", "2000"], "max_queue"),
        (["--model", "no-such-folder/x"], "no-such-folder/x"),
        (["--model", "demo", "--host", "192.0.2.1", "--no-key"], "192.0.2.1"),
    ],
    ids=str,
)
@pytest.mark.slow
def test_what_cannot_be_served_is_said_in_a_line(arguments: list[str], message: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    code = """import sys
sys.modules["uvicorn"] = sys.modules["fastapi"] = sys.modules["prometheus_client"] = None
from distilvl.serving import ServeSettings, serve
serve("demo", None, ServeSettings())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'distilvl[serve]'" in done.stderr
