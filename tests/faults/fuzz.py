"""Files that are almost right: whatever is in them, a command ends within seconds, with 0 or with one line of error.

    python tests/faults/fuzz.py [TARGET ...] [--inputs 10000] [--seed 0]

Each input is a file of one target with some of it changed: bytes (flipped, cut, doubled, overwritten) or, in JSON, JSON
lines and YAML, values (other types, huge numbers, lone surrogates, deep nesting, long names). An input is the target's
name and a number, so that one that falls is made again by `--only TARGET:NUMBER`. Exit code 1 where one falls.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pyarrow
import pyarrow.parquet
import yaml
from commands import COMMANDS, Bench, Workshop
from mutations import changed_bytes, changed_text
from runner import Outcome, Runner

import distilvl.experiments


@dataclass(frozen=True)
class Target:
    """A file that some command reads."""

    path: Callable[[Workshop], Path]
    reads: Callable[[Workshop], Sequence[str]]
    needs: tuple[str, ...] = ()
    made_by: str | None = None
    make: Callable[[Workshop], None] | None = None


def _inspect(name: str) -> Callable[[Workshop], Sequence[str]]:
    return lambda shop: ["data", "inspect", shop.made(name), "--json"]


def _own(shop: Workshop, name: str) -> Path:
    """A folder of a target's own, with the pictures."""
    folder = shop.path / name
    folder.mkdir(exist_ok=True)
    for path in shop.data.glob("*.png"):
        shutil.copy(path, folder)
    return folder


def _karpathy(shop: Workshop) -> None:
    lines = [json.loads(line) for line in (shop.data / "captions.jsonl").read_text().splitlines()]
    images = [{"filename": one["image"], "split": one["split"], "imgid": k, "sentids": [2 * k, 2 * k + 1],
               "sentences": [{"raw": text, "sentid": 2 * k + i, "imgid": k, "tokens": text.split()}
                             for i, text in enumerate(one["captions"])]}
              for k, one in enumerate(lines)]  # fmt: skip
    (_own(shop, "karpathy") / "dataset.json").write_text(json.dumps({"images": images, "dataset": "tiny"}))


def _coco(shop: Workshop) -> None:
    folder = shop.path / "coco"
    shutil.copytree(shop.data, folder / "images", dirs_exist_ok=True)
    names = sorted(path.name for path in shop.data.glob("*.png"))
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    captions = [{"id": k, "image_id": k, "caption": f"a {name}"} for k, name in enumerate(names)]
    (folder / "captions_all.json").write_text(json.dumps({"images": images, "annotations": captions}))


def _csv(shop: Workshop) -> None:
    lines = [f"{path.name},a picture {k},train" for k, path in enumerate(sorted(shop.data.glob("*.png")))]
    (_own(shop, "csv") / "list.csv").write_text("\n".join(["image,caption,split", *lines]))


def _parquet(shop: Workshop) -> None:
    paths = sorted(shop.data.glob("*.png"))
    columns = {"image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
               "caption": [[f"a {path.stem}"] for path in paths], "split": ["train"] * len(paths)}  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), _own(shop, "parquet") / "data.parquet")


def _shards(shop: Workshop) -> None:
    folder = shop.path / "shards"
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "train-000.tar", "w") as tar:
        for path in sorted(shop.data.glob("*.png")):
            for name, data in ((path.name, path.read_bytes()), (f"{path.stem}.txt", f"a {path.stem}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _arrays(shop: Workshop) -> None:
    folder = shop.path / "arrays"
    folder.mkdir(exist_ok=True)
    names = [path.name for path in sorted(shop.data.glob("*.png"))]
    random_rows = np.random.default_rng(0)
    np.save(folder / "image_features.npy", random_rows.normal(size=(32, 6)).astype(np.float32))
    np.save(folder / "text_features.npy", random_rows.normal(size=(64, 6)).astype(np.float32))
    ids = {"image": names, "text": [f"{name}#{k}" for name in names for k in range(2)]}
    (folder / "ids.json").write_text(json.dumps(ids))


def _recipe(shop: Workshop) -> None:
    tree = {"extends": "default", "objective": {"losses": ["cd", "fd"], "cd": {"queue": 16}}, "optimizer": {"lr": 1e-4},
            "training": {"epochs": 1, "batch_size": 8, "precision": "fp32"}, "schedule": {"kind": "cosine"},
            "phases": [{"optimizer": {"lr": 1e-3}}]}  # fmt: skip
    (shop.path / "recipe.yaml").write_text(yaml.safe_dump(tree))


def _table(shop: Workshop) -> None:
    shutil.copy(Path(distilvl.experiments.__file__).parent / "tables" / "strong.yaml", shop.path / "table.yaml")


class _Replies(BaseHTTPRequestHandler):
    """An embeddings server: every request is answered by what the file holds, one item a request."""

    file: Path

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        data = self.file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _reply(shop: Workshop) -> None:
    file = shop.path / "reply.json"
    reply = {"data": [{"index": 0, "embedding": [0.5, -0.5, 0.25, 1.0], "object": "embedding"}], "model": "m"}
    file.write_text(json.dumps({**reply, "usage": {"prompt_tokens": 3, "total_tokens": 3}}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Replies", (_Replies,), {"file": file}))
    (shop.path / "reply.port").write_text(str(server.server_port))
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _asked(shop: Workshop) -> list[str]:
    port = (shop.path / "reply.port").read_text()
    options = "model=m&dim=4&batch=1&concurrency=1&retries=1&backoff=0&timeout=5"
    return _features(shop, f"openai+http://127.0.0.1:{port}/v1?{options}")


def _in(name: str) -> Callable[[Workshop], Path]:
    return lambda shop: shop.path / name


def _embed(shop: Workshop) -> list[str]:
    return ["embed", shop.made("run"), str(shop.data), "--text", "a dog", "--out", shop.made("answer")]


def _features(shop: Workshop, teacher: str) -> list[str]:
    return ["features", "--teacher", teacher, "--data", str(shop.data), "--out", shop.made("answer")]


def _train(shop: Workshop, *more: str) -> list[str]:
    return ["train", "--features", shop.made("store"), "--data", str(shop.data), "--out", shop.made("answer"),
            "--device", "cpu", *more]  # fmt: skip


def _store_shard(shop: Workshop) -> Path:
    return sorted(Path(shop.made("store")).glob("image-*.npy"))[0]


def _of_student(name: str) -> Callable[[Workshop], Path]:
    return lambda shop: sorted((Path(shop.made("run")) / "student").rglob(name))[0]


TARGETS: dict[str, Target] = {
    "jsonl": Target(lambda shop: shop.data / "captions.jsonl", _inspect("data")),
    "karpathy": Target(_in("karpathy/dataset.json"), _inspect("karpathy/dataset.json"), make=_karpathy),
    "coco": Target(_in("coco/captions_all.json"), _inspect("coco/captions_all.json"), make=_coco),
    "csv": Target(_in("csv/list.csv"), _inspect("csv/list.csv"), make=_csv),
    "parquet": Target(_in("parquet/data.parquet"), _inspect("parquet/data.parquet"), make=_parquet),
    "shard": Target(
        lambda shop: shop.path / "shards" / "train-000.tar",
        lambda shop: ["data", "inspect", f"webdataset:{shop.made('shards')}", "--json"], make=_shards,
    ),
    "picture": Target(lambda shop: shop.data / "00.png", _embed, ("store", "run")),
    "manifest": Target(
        lambda shop: Path(shop.made("store")) / "manifest.json",
        lambda shop: ["features", "merge", shop.made("store"), "--out", shop.made("answer")], ("store",),
    ),
    "features": Target(_store_shard, lambda shop: ["features", "verify", shop.made("store")], ("store",)),
    "arrays": Target(
        lambda shop: Path(shop.made("arrays")) / "image_features.npy",
        lambda shop: _features(shop, shop.made("arrays")), make=_arrays,
    ),
    "ids": Target(
        lambda shop: Path(shop.made("arrays")) / "ids.json", lambda shop: _features(shop, shop.made("arrays")),
        make=_arrays,
    ),
    "reply": Target(_in("reply.json"), _asked, make=_reply),
    "recipe": Target(
        lambda shop: shop.path / "recipe.yaml",
        lambda shop: _train(shop, "--recipe", shop.made("recipe.yaml"), "--student", shop.made("student.yaml")),
        ("store",), make=_recipe,
    ),
    "student-yaml": Target(
        lambda shop: shop.path / "student.yaml",
        lambda shop: ["fit", "--features", shop.made("store"), "--data", str(shop.data), "--student",
                      shop.made("student.yaml"), "--out", shop.made("answer"), "--device", "cpu"],
        ("store",),
    ),
    "table": Target(
        _in("table.yaml"),
        lambda shop: ["reproduce", shop.made("table.yaml"), "--data", str(shop.data), "--features", shop.made("store"),
                      "--student", shop.made("student.yaml"), "--out", shop.made("answer"), "--dry-run"],
        ("store",), make=_table,
    ),
    "run-config": Target(
        lambda shop: Path(shop.made("run")) / "config.yaml",
        lambda shop: ["report", shop.made("run"), "--out", shop.made("answer.html")],
        ("store", "run"),
    ),
    "run-result": Target(
        lambda shop: Path(shop.made("run")) / "result.json",
        lambda shop: ["eval", shop.made("run"), "--data", str(shop.data), "--split", "train", "--json"],
        ("store", "run"),
    ),
    "modules": Target(_of_student("modules.json"), _embed, ("store", "run")),
    "routes": Target(_of_student("router_config.json"), _embed, ("store", "run")),
    "tokenizer": Target(_of_student("tokenizer.json"), _embed, ("store", "run")),
    "tower-config": Target(_of_student("config.json"), _embed, ("store", "run")),
    "weights": Target(_of_student("model.safetensors"), _embed, ("store", "run")),
    "export": Target(
        lambda shop: sorted(shop.out.glob("*.json"))[0],
        lambda shop: ["embed", str(shop.out), str(shop.data), "--out", shop.made("answer")],
        ("store", "run"), made_by="export",
    ),
    "index": Target(
        lambda shop: next(path for path in sorted(shop.out.glob("*.json"))),
        lambda shop: ["search", str(shop.out), "a dog", "--json"], ("store", "run"), made_by="index",
    ),
}  # fmt: skip
TEXTS = (".json", ".jsonl", ".yaml")


class Fuzz(Bench):
    """The targets' files, changed."""

    def _file_of(self, target: Target) -> Path:
        self.prepare(target.needs)
        if target.make is not None:
            target.make(self.shop)
        if target.made_by is not None:
            self.fresh()
            assert self.run(COMMANDS[target.made_by].argv(self.shop)).code == 0
        return target.path(self.shop)

    def target(self, name: str, numbers: Sequence[int], seed: int = 0) -> list[str]:
        """What fell of these inputs."""
        target, fell = TARGETS[name], []
        path = self._file_of(target)
        data = path.read_bytes()
        first = self._answer(target)
        assert first.code == 0, first.said
        try:
            for number in numbers:
                drawn = random.Random(f"{seed} {name} {number}")
                is_text = path.suffix in TEXTS
                path.write_bytes(changed_text(data, path.suffix, drawn) if is_text else changed_bytes(data, drawn))
                problem = (done := self._answer(target)).fault()
                if problem is not None:
                    fell.append(f"{name}:{number}: {problem}\n{done.said[-400:]}")
        finally:
            path.write_bytes(data)
        return fell

    def _answer(self, target: Target) -> Outcome:
        for left in self.shop.path.glob("answer*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return self.run(target.reads(self.shop))


def main() -> int:
    """Fuzz and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="TARGET:NUMBER of one that fell")
    args = parser.parse_args()
    names, fell = args.targets or list(TARGETS), 0
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder), seconds=10) as runner:
        fuzz = Fuzz(Path(folder), runner)
        if args.only:
            name, number = args.only.split(":")
            sys.stdout.write("\n".join(fuzz.target(name, [int(number)], args.seed)) + "\n")
            return 0
        for name in names:
            found = fuzz.target(name, range(args.inputs // len(names)), args.seed)
            sys.stdout.write(
                "\n".join([f"{name}: {args.inputs // len(names)} inputs, {len(found)} fell", *found]) + "\n"
            )
            sys.stdout.flush()
            fell += len(found)
    return int(fell > 0)


if __name__ == "__main__":
    sys.exit(main())
