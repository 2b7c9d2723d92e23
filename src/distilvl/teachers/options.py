"""How a local teacher is run: `SPEC?device=cuda&dtype=bfloat16&batch_size=64`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from distilvl.errors import DistilvlError

_OPTIONS = re.compile(r"[a-z_]+=[^=&?/]*(&[a-z_]+=[^=&?/]*)*")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_REMEDY = "Write SPEC?device=cuda&dtype=bfloat16&batch_size=64, or leave any of the three out."


@dataclass(frozen=True)
class RunOptions:
    """Where and how a teacher runs.

    Attributes:
        device: a PyTorch device; the GPU if there is one unless given.
        dtype: `float32`, `bfloat16` or `float16`; the teacher's own default unless given. Another than the default
            is part of the teacher's revision, since its features differ.
        batch_size: items a forward pass.
    """

    device: str | None = None
    dtype: str | None = None
    batch_size: int = 32

    @property
    def torch_device(self) -> torch.device:
        """The device asked for, or the best one at hand."""
        if self.device is not None:
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def torch_dtype(self, default: torch.dtype = torch.float32) -> torch.dtype:
        """PyTorch's name of `dtype`."""
        return default if self.dtype is None else _DTYPES[self.dtype]

    def revision(self, weights: str, default: str | None = "float32") -> str:
        """`weights`, a hash or a commit, with the number format where it was chosen and is not the default."""
        return weights if self.dtype in (None, default) else f"{weights}-{self.dtype}"


DEFAULTS = RunOptions()


def split_options(spec: str) -> tuple[str, RunOptions]:
    """`spec` without its options, and the options.

    Raises:
        DistilvlError: an unknown option, or a value it cannot have.
    """
    body, mark, query = spec.rpartition("?")
    if not mark or not _OPTIONS.fullmatch(query):
        return spec, DEFAULTS
    given = dict(pair.split("=", 1) for pair in query.split("&"))
    unknown = sorted(set(given) - {"device", "dtype", "batch_size"})
    if unknown:
        raise DistilvlError(f"teacher {body!r} has no option {unknown[0]!r}.", _REMEDY)
    dtype, size = given.get("dtype"), given.get("batch_size", str(DEFAULTS.batch_size))
    if dtype is not None and dtype not in _DTYPES:
        raise DistilvlError(f"dtype is {dtype!r}, not one of {', '.join(_DTYPES)}.", _REMEDY)
    if not (size.isascii() and size.isdigit() and int(size) > 0):
        raise DistilvlError(f"batch_size is {size!r}, not a positive number.", _REMEDY)
    return body, RunOptions(_checked_device(given.get("device")), dtype, int(size))


def _checked_device(device: str | None) -> str | None:
    if device is None:
        return None
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise DistilvlError(f"there is no device {device!r}.", "Name cpu, cuda, cuda:1 or mps.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise DistilvlError(f"the device {device!r} is asked for, but this machine has no CUDA.", "Leave it out.")
    return device
