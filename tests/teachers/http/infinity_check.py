"""The HTTP teacher against a real embedding server: Infinity, serving a tiny CLIP, behind the faulty proxy.

Not collected by pytest, since Infinity pins older versions of this project's dependencies. It needs an environment of
its own with `pip install torch aiohttp "infinity-emb[server,torch,vision]"`, from which torchvision is removed again
(a CPU-only torch does not get along with it), and is run in the project's environment:

    python tests/teachers/http/infinity_check.py INFINITY_ENV/bin [port]

Checks that the store ends complete, that Infinity computed every item once, and that the rows are those of the same
model called directly in Infinity's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from conftest import FaultyProxy
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.extraction import extract_features
from distilvl.io.hashes import image_key, text_key
from distilvl.teachers.http import HttpTeacher

IMAGES, DIM = 40, 16

MAKE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizerFast
out = Path(sys.argv[1])
letters = [chr(c) for c in range(33, 127)]
words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
(out / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
(out / "merges.txt").write_text("#version: 0.2\\n")
tokenizer = CLIPTokenizerFast(str(out / "vocab.json"), str(out / "merges.txt"), model_max_length=64)
side = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
tower = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
last = len(words) - 1
config = CLIPConfig(
    text_config=dict(**tower, vocab_size=len(words), max_position_embeddings=64, eos_token_id=last, pad_token_id=last,
                     bos_token_id=last - 1),
    vision_config=dict(**tower, image_size=32, patch_size=8), projection_dim=16)
torch.manual_seed(0)
model = CLIPModel(config).eval()
# Random weights of the usual size give nearly the same row for everything; these do not.
for parameter in model.parameters():
    parameter.data += 0.3 * torch.randn_like(parameter)
processor = CLIPProcessor(CLIPImageProcessor(**side), tokenizer)
model.save_pretrained(out / "clip")
processor.save_pretrained(out / "clip")
pictures = [Image.open(path).convert("RGB") for path in sorted((out / "photos").glob("*.png"))]
texts = json.loads((out / "texts.json").read_text())
with torch.no_grad():
    images = model.get_image_features(**processor(images=pictures, return_tensors="pt"))
    rows = model.get_text_features(**processor(text=texts, return_tensors="pt", padding=True, truncation=True))
np.save(out / "images.npy", images.numpy())
np.save(out / "texts.npy", rows.numpy())
"""


def photos(folder: Path) -> PairDataset:
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    records = []
    for k in range(IMAGES):
        path = folder / "photos" / f"{k:02d}.png"
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
        records.append(Record(f"{k:02d}", FileImage(str(path)), (f"red box {k}", f"a blue ball {k}"), "train"))
    dataset = PairDataset("photos", tuple(records))
    (folder / "texts.json").write_text(json.dumps(dataset.captions))
    return dataset


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("Infinity did not start") from None
            time.sleep(1)


def cosines(stored: np.ndarray, expected: np.ndarray) -> np.ndarray:
    stored, expected = stored.astype(np.float64), expected.astype(np.float64)
    return (stored * expected).sum(1) / np.linalg.norm(stored, axis=1) / np.linalg.norm(expected, axis=1)


def main(env: Path, port: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = photos(folder)
        subprocess.run([env / "python", "-c", MAKE, folder], check=True)
        server = subprocess.Popen(
            [env / "infinity_emb", "v2", "--model-id", folder / "clip", "--served-model-name", "tiny-clip", "--host",
             "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32", "--engine", "torch",
             "--no-bettertransformer", "--no-model-warmup"],
            env={**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        proxy = FaultyProxy(url, silence_s=65, silences=1)
        try:
            wait_for(url, server)
            HttpTeacher.from_spec(f"infinity+{url}?model=tiny-clip&dim={DIM}&timeout=300").encode_texts(["warm up"])
            spec = f"infinity+{proxy.url}?model=tiny-clip&dim={DIM}&batch=6&concurrency=4&backoff=0.05&timeout=60"
            report = extract_features(HttpTeacher.from_spec(spec), dataset, folder / "store", shard_size=16)
        finally:
            proxy.close()
            server.terminate()
            server.wait(60)
        store = report.store
        assert store.verify().images == IMAGES
        assert store.counts == {"image": IMAGES, "text": 2 * IMAGES}
        assert set(proxy.passed.values()) == {1}, "an item was paid for twice"
        assert len(proxy.passed) == 3 * IMAGES
        images = cosines(store.images([image_key(r.image.read()) for r in dataset]), np.load(folder / "images.npy"))
        texts = cosines(store.texts([text_key(text) for text in dataset.captions]), np.load(folder / "texts.npy"))
        assert min(images.min(), texts.min()) > 1 - 1e-5, (images.min(), texts.min())
        print(f"faults met: {dict(proxy.met)}; least cosine: {min(images.min(), texts.min()):.7f}")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 7997)
