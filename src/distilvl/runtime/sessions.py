"""onnxruntime sessions, made when they are first needed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError

_ERRORS_ONLY = 3


class Graph:
    """One exported graph; safe to call from several threads at once.

    Args:
        path: an ONNX file.
        threads: within one call; none for one a physical core.
        busy_wait: idle threads of a call spin for a while instead of sleeping.
    """

    def __init__(self, path: Path, threads: int | None, busy_wait: bool) -> None:
        self._path = path
        self._threads = threads
        self._busy_wait = busy_wait
        self._session: Any = None
        self._lock = threading.Lock()

    def __call__(self, **inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Features (n, D) of inputs by name.

        Raises:
            DistilvlError: onnxruntime is not installed or cannot read the file.
        """
        features: npt.NDArray[np.float32] = self._opened().run(["features"], inputs)[0]
        return features

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = _open(self._path, self._threads, self._busy_wait)
            return self._session


def _open(path: Path, threads: int | None, busy_wait: bool) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DistilvlError(
            "an exported student needs the package onnxruntime.", "Install it: pip install 'distilvl[runtime]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(busy_wait)))
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base below Exception
        reason = " ".join(str(error).split())[:200]
        raise DistilvlError(
            f"onnxruntime cannot read {path}: {reason}", "Update onnxruntime, or export again."
        ) from error
