"""What clients send that want to hold a server; `hostile.py` sends it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from PIL import Image


@dataclass
class Server:
    """A running server."""

    url: str
    model: str
    index: Path
    pid: int
    process: subprocess.Popen[str] | None
    log: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def status(self, name: str) -> int:
        """`VmRSS` in MiB, or `Threads`, of the process."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{name}:\s+(\d+)", text)
        assert found is not None
        return int(found[1]) // (1024 if name.startswith("Vm") else 1)


Attack = Callable[[Server, Counter[str]], None]


def post(server: Server, answers: Counter[str], value: object, path: str = "/v1/embeddings", **fields: object) -> None:
    """Send one request of embeddings, or `value` as the body where it is bytes, and count its answer."""
    body = value if isinstance(value, bytes) else json.dumps({"model": server.model, "input": value, **fields}).encode()
    headers = {"Content-Type": "application/json"}
    try:
        answer = httpx2.post(f"{server.url}{path}", content=body, headers=headers, timeout=90, trust_env=False)
    except httpx2.HTTPError as error:
        answers[f"no answer ({type(error).__name__})"] += 1
        return
    try:
        answer.json()
        answers[str(answer.status_code)] += 1
    except ValueError:
        answers[f"{answer.status_code}, not JSON"] += 1


def uri(data: bytes) -> str:
    """A picture as requests hold it."""
    return f"data:image/any;base64,{base64.b64encode(data).decode()}"


def png(width: int, height: int, rows: int, extra: int = 0) -> bytes:
    """A PNG that says `width` x `height`, with data for `rows`, and `extra` chunks of text before them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((1 + width) * rows), 9))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tEXt", b"") * extra + pixels + chunk(b"IEND", b"")


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there very often."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(out, "JPEG", progressive=True, quality=20)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def together(count: int, work: Callable[[int], None]) -> None:
    """`work` in so many threads."""
    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stalled(server: Server, answers: Counter[str], count: int, sent: bytes, declared: int) -> None:
    """So many uploads that stop in the middle, held until the server gives up."""
    held = []
    for _ in range(count):
        raw = socket.create_connection(("127.0.0.1", server.port), 10)
        raw.settimeout(40)
        held.append(raw)
        with contextlib.suppress(OSError):
            raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            raw.sendall(b"Content-Length: %d\r\n\r\n" % declared + sent)
    for raw in held:
        try:
            line = raw.recv(100)
            answers[line.split()[1].decode() if line else "closed"] += 1
        except OSError as error:
            answers[f"no answer ({type(error).__name__})"] += 1
        raw.close()


def garbage(server: Server, answers: Counter[str]) -> None:
    """Requests that are wrong in one way each."""
    for path, body in (("/v1/embeddings", b"{"), ("/search", b"[]"), ("/nowhere", b"x"), ("/v1/embeddings", b"\xff"),
                       ("/search", b'{"text": "a", "top": 1e999}'), ("/healthz", b"{}")):  # fmt: skip
        for _ in range(50):
            post(server, answers, body, path)
    chunked = b"POST /search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    long = b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n"
    for head in (b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", chunked, long):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), 10) as raw, contextlib.suppress(OSError):
                raw.sendall(head)
                line = raw.recv(100)
                answers[line.split()[1].decode() if line else "closed"] += 1


def rebuilt(server: Server, answers: Counter[str]) -> None:
    """The index is made anew while it is asked, and then its files are gone for a while."""
    command = [sys.executable, "-m", "distilvl", "index", str(server.index.parent / "photos"), "--rebuild"]
    with subprocess.Popen([*command, "--out", str(server.index)], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            post(server, answers, json.dumps({"text": "a dog"}).encode(), "/search")
    assert set(answers) == {"200"}, f"the old one does not answer until the new one is whole: {answers}"
    aside = server.index.rename(server.index.with_name("aside"))
    for _ in range(20):
        post(server, answers, json.dumps({"text": "a dog"}).encode(), "/search")
    aside.rename(server.index)


def attacks() -> dict[str, tuple[Attack, set[str]]]:
    """By name: what it sends, and the statuses that are right."""
    keys = json.dumps({f"key{k}": 0 for k in range(1_400_000)}).encode()[:19_900_000]
    chunks, scans = uri(png(64, 64, 64, 800_000)), uri(many_scans(1500, 90))
    slow, short = uri(many_scans(5000, 60)), uri(png(7000, 7000, 10))
    pictures = [uri(png(1000 + k, 1000, 1000)) for k in range(256)]
    texts = ["".join(chr(97 + (k * 7 + j) % 26) for j in range(75)) * 1000 for k in range(250)]
    big = uri(png(7000, 7000, 7000))
    return {
        "1.4 million unknown keys": (lambda s, a: together(4, lambda _: post(s, a, keys)), {"422", "503"}),
        "250 texts of 75,000 characters": (lambda s, a: together(4, lambda _: post(s, a, texts)), {"200", "503"}),
        "256 pictures": (lambda s, a: together(4, lambda _: post(s, a, pictures)), {"200", "503", "504"}),
        "pictures of 49 megapixels": (lambda s, a: together(8, lambda _: post(s, a, [big])), {"200", "503"}),
        "a PNG of 800,000 chunks": (lambda s, a: together(4, lambda _: post(s, a, [chunks])), {"422", "503"}),
        "a PNG that lacks its rows": (lambda s, a: together(8, lambda _: post(s, a, [short])), {"422", "503"}),
        "a JPEG of 90 scans": (lambda s, a: together(16, lambda _: post(s, a, [scans])), {"200", "503"}),
        "a JPEG of 60 scans of 25 megapixels": (lambda s, a: together(8, lambda _: post(s, a, [slow])), {"200", "503"}),
        "54 stalled uploads": (lambda s, a: stalled(s, a, 54, b'{"input": "' + b"a" * 6_000_000, 19_000_000),
                               {"408", "503"}),
        "200 stalled headers of bodies": (lambda s, a: stalled(s, a, 200, b"{", 1000), {"408"}),
        "wrong requests": (garbage, {"400", "403", "404", "405", "422", "closed"}),
        "an index made anew and taken away": (rebuilt, {"200", "503"}),
    }  # fmt: skip
