"""`Runtime`: an exported student behind the two calls of a teacher."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError, require
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.runtime.inputs import TextTokenizer, to_pixels
from distilvl.runtime.manifest import Manifest, check_file, read_manifest

Features = npt.NDArray[np.float32]
_BATCH = 64


class Runtime:
    """An exported student; made by `Runtime.load`, safe to use from several threads.

    Attributes:
        name, revision, dim: of the student; the revision changes with the dtype, too.
        max_length: tokens of a text that are read, special ones included.
        matryoshka_dims: others to which embeddings may be cut, for which the student was trained.
        manifest: all that the folder says of itself.
        precision: the dtype that is used, `fp32`, `fp16` or `int8`.
    """

    def __init__(self, folder: Path, manifest: Manifest, precision: str, threads: int | None, busy_wait: bool) -> None:
        self.manifest, self.precision = manifest, precision
        self.name, self.revision = manifest.name, f"{manifest.revision}-{precision}"
        self.dim, self.matryoshka_dims, self.max_length = manifest.dim, manifest.dims, manifest.max_length
        self.preprocessing = json.dumps([dict(step) for step in manifest.steps])
        image, text = manifest.graphs(precision)
        paths = {name: check_file(folder, name, manifest.files[name]) for name in (image, text, manifest.tokenizer)}
        self._tokenizer = TextTokenizer(paths[manifest.tokenizer], manifest.max_length, manifest.pad_id)
        self._image = _Graph(paths[image], threads, busy_wait)
        self._text = _Graph(paths[text], threads, busy_wait)

    @classmethod
    def load(
        cls, folder: str | Path, *, precision: str | None = None, threads: int | None = None, busy_wait: bool = True
    ) -> Runtime:
        """The student in a folder that `distilvl export` wrote.

        Args:
            folder: with a `manifest.json`; every file that is used is checked against its SHA-256.
            precision: the dtype: `fp32`, `fp16` or `int8`, whichever the folder has; by default the smallest.
            threads: within one call; by default one a physical core.
            busy_wait: idle threads of a call spin for a while instead of sleeping. A lone call is 10 to 30 % faster
                with it; a process that does other work at the same time, such as a server, is slower.

        Raises:
            DistilvlError: not an exported student, a dtype that it lacks, a file that is missing or damaged.
        """
        if threads is not None and threads < 1:
            raise DistilvlError(f"{threads} threads cannot encode anything.", "Give 1 or more.")
        manifest = read_manifest(folder)
        chosen = manifest.smallest() if precision is None else precision
        if chosen not in manifest.precisions:
            raise DistilvlError(f"{folder} has no dtype {chosen!r}.", f"It has: {', '.join(manifest.precisions)}.")
        return cls(Path(folder), manifest, chosen, threads, busy_wait)

    def encode_images(self, images: Sequence[Image.Image]) -> Features:
        """PIL images of any mode to float32 embeddings, (n, D); L2-normalised unless the student has no such layer.

        They may come as PIL opens them or as `decode_image` gives them: either way they are made upright RGB in sRGB.
        """
        images, size = list_of_images(images), self.manifest.size
        out = np.empty((len(images), self.dim), dtype=np.float32)
        for k in range(0, len(images), _BATCH):
            out[k : k + _BATCH] = self._image(pixels=to_pixels(images[k : k + _BATCH], self.manifest.steps, size))
        return out

    def encode_texts(self, texts: Sequence[str]) -> Features:
        """Texts to float32 embeddings, (n, D); as `encode_images`. `DistilvlError` for half a surrogate pair."""
        rows = self._tokenizer.rows(list_of_texts(texts))
        out = np.empty((len(rows), self.dim), dtype=np.float32)
        # Texts of like length together, so that little is padded.
        order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            ids, mask = self._tokenizer.pad([rows[k] for k in chosen])
            out[chosen] = self._text(input_ids=ids, attention_mask=mask)
        return out

    def __repr__(self) -> str:
        return f"Runtime({self.name!r}, {self.precision}, dim={self.dim}, revision={self.revision!r})"


class _Graph:
    """One exported graph, opened at its first call; safe to call from several threads at once."""

    def __init__(self, path: Path, threads: int | None, busy_wait: bool) -> None:
        self._path, self._threads, self._busy_wait = path, threads, busy_wait
        self._session: Any = None
        self._lock = threading.Lock()

    def __call__(self, **inputs: npt.NDArray[Any]) -> Features:
        """Embeddings (n, D) of inputs by name; `DistilvlError` without onnxruntime or for a file it cannot read."""
        with self._lock:
            if self._session is None:
                self._session = self._open()
        return self._session.run(["features"], inputs)[0]  # type: ignore[no-any-return]

    def _open(self) -> Any:
        onnxruntime = require("onnxruntime", extra="runtime", why="an exported student")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self._busy_wait)))
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            return onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base below Exception
            what = f"onnxruntime cannot read {self._path}: {' '.join(str(error).split())[:200]}"
            raise DistilvlError(what, "Update onnxruntime, or export again.") from error
