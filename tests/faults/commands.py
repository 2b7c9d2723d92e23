"""The commands that are swept, each on tiny data, and what of their output has to be the same whatever happened."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from runner import Outcome, Runner
from safetensors.numpy import load_file

TEACHER = f"{Path(__file__).parents[1] / 'colour_teacher.py'}:ColourTeacher"
STUDENT = """
image:
  config: {model_type: vit, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32,
           image_size: 16, patch_size: 8, hidden_dropout_prob: 0.1}
  size: 16
  pooling: mean
text: {kind: static, vocabulary: 120, rank: 4}
"""
SETTINGS = ["--set", "training.batch_size=8", "--set", "training.epochs=1", "--set", "objective.cd.queue=16", "--set",
            "training.precision=fp32", "--set", "training.checkpoint_every=1", "--device", "cpu"]  # fmt: skip
_TIMES = {"seconds", "pairs_per_s", "teacher_seconds", "image_ms", "text_ms"}  # what no two runs share
_PAGES = (".html", ".png", ".svg", ".md", ".csv", ".txt")  # they say how long it took


@dataclass(frozen=True)
class Workshop:
    """A folder with the data, and what was made of them."""

    path: Path

    @property
    def data(self) -> Path:
        """Pictures with captions."""
        return self.path / "data"

    @property
    def out(self) -> Path:
        """Where the command that is swept writes."""
        return self.path / "out"

    def made(self, name: str) -> str:
        """What was prepared under this name."""
        return str(self.path / name)


def make_data(folder: Path) -> None:
    """32 pictures of noise with two captions each: 24 to learn from, 4 to score on, 4 to spare."""
    folder.mkdir(parents=True)
    random, lines = np.random.default_rng(0), []
    words = (
        "ant bee cat dog elk fox gnu hen ibis jay koi lark mole newt owl pig quail ram seal toad urial vole wasp yak "
    )
    words += "zebu adder bat crab duck eel frog goat"
    for k, word in enumerate(words.split()):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")
        split = "train" if k < 24 else "val" if k < 28 else "test"
        lines.append({"image": f"{k:02d}.png", "captions": [f"a {word}", f"one {word} alone"], "split": split})
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder.parent / "student.yaml").write_text(STUDENT, encoding="utf-8")


@dataclass(frozen=True)
class Command:
    """One that is swept."""

    argv: Callable[[Workshop], Sequence[str]]
    needs: tuple[str, ...] = ()  # what is prepared first, keys of `PREPARED`


def _features(shop: Workshop, out: str, *more: str) -> list[str]:
    return ["features", "--teacher", TEACHER, "--data", str(shop.data), "--out", out, *more]


def _train(shop: Workshop, out: str) -> list[str]:
    return ["train", "--features", shop.made("store"), "--data", str(shop.data), "--student", shop.made("student.yaml"),
            "--out", out, *SETTINGS]  # fmt: skip


PREPARED: dict[str, Callable[[Workshop], Sequence[str]]] = {
    "store": lambda shop: _features(shop, shop.made("store")),
    "train-store": lambda shop: _features(shop, shop.made("train-store"), "--split", "train"),
    "run": lambda shop: _train(shop, shop.made("run")),
}

COMMANDS: dict[str, Command] = {
    "features": Command(lambda shop: _features(shop, str(shop.out), "--views", "2")),
    "merge": Command(
        lambda shop: ["features", "merge", shop.made("store"), shop.made("train-store"), "--out", str(shop.out)],
        ("store", "train-store"),
    ),
    "train": Command(lambda shop: _train(shop, str(shop.out)), ("store",)),
    "fit": Command(
        lambda shop: ["fit", "--features", shop.made("store"), "--data", str(shop.data), "--student",
                      shop.made("student.yaml"), "--out", str(shop.out), "--set", "fit.held_out=20", "--device", "cpu"],
        ("store",),
    ),
    "index": Command(
        lambda shop: ["index", str(shop.data), "--model", shop.made("run"), "--out", str(shop.out)], ("store", "run")
    ),
    "export": Command(
        lambda shop: ["export", shop.made("run"), "--out", str(shop.out), "--precision", "fp32", "--data",
                      str(shop.data), "--split", "val"],
        ("store", "run"),
    ),
    "report": Command(
        lambda shop: ["report", shop.made("run"), "--out", str(shop.out / "report.html")], ("store", "run")
    ),
    "reproduce": Command(
        lambda shop: ["reproduce", "table10", "--features", shop.made("store"), "--data", str(shop.data), "--student",
                      shop.made("student.yaml"), "--out", str(shop.out), "--seeds", "1", *SETTINGS],
        ("store",),
    ),
}  # fmt: skip


class Bench:
    """A workshop in `folder`, in which `runner` makes what commands need, once."""

    def __init__(self, folder: Path, runner: Runner) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shop, self._runner = Workshop(folder / "shop"), runner
        make_data(self.shop.data)
        self._made: set[str] = set()

    def prepare(self, names: Sequence[str]) -> None:
        """Make what is not made yet of `PREPARED`."""
        for name in names:
            if name not in self._made:
                done = self.run(PREPARED[name](self.shop))
                assert done.code == 0, done.said
                self._made.add(name)

    def run(self, argv: Sequence[str], n: int = 0, error: int = 0) -> Outcome:
        """As `Runner.run`, in the workshop."""
        return self._runner.run(argv, self.shop.path, n, error)

    def fresh(self) -> None:
        """Take away what the last command wrote."""
        shutil.rmtree(self.shop.out, ignore_errors=True)


def content(folder: Path) -> dict[str, str]:
    """Path below `folder` to a hash of what it holds, without times; of an index its rows."""
    found: dict[str, str] = {}
    if any(folder.rglob("*.lance")):
        return {"rows": _hash(_rows(folder))}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in _PAGES and path.name != "environment.json":
            found[path.relative_to(folder).as_posix()] = _hash(_timeless(path))
    return found


def _rows(folder: Path) -> bytes:
    import lancedb

    table = lancedb.connect(next(folder.rglob("*.lance")).parent).open_table("photos")
    rows = table.to_arrow().to_pylist()
    return json.dumps(sorted((row["path"], row["vector"]) for row in rows)).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _timeless(path: Path) -> bytes:
    if path.suffix == ".safetensors":  # a checkpoint says in its head how long it took
        return b"".join(name.encode() + value.tobytes() for name, value in sorted(load_file(path).items()))
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    lines = path.read_text(encoding="utf-8")
    values = [json.loads(line) for line in lines.splitlines()] if path.suffix == ".jsonl" else [json.loads(lines)]
    return json.dumps([_without_times(value) for value in values]).encode()


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        timed = value.keys() & _TIMES or any("scores" in key for key in value)  # then a checksum is of times, too
        return {
            key: _without_times(one)
            for key, one in value.items()
            if key not in _TIMES | ({"checksum"} if timed else set())
        }
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def left_behind(folder: Path) -> list[str]:
    """Temporaries that nobody will use."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".partial-*"))
