"""What a teacher's method may return: anything that is an array of embeddings becomes one of NumPy."""

import inspect
import sys
from collections.abc import Awaitable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.floating[Any]]

# Where models keep the embeddings that are wanted; an output with one of them was returned whole by mistake.
_FIELDS = ("image_embeds", "text_embeds", "sentence_embedding", "embeddings", "pooler_output")
_FLOATS = "Return floating-point numbers, such as embeddings.astype(numpy.float32)."
_WHOLE: dict[tuple[type, ...], str] = {
    (Awaitable,): "Write it without `async`.",
    (Iterator,): "Return an array, such as numpy.stack(list(embeddings)).",
    (str, bytes, bytearray): _FLOATS,
}


class UnfitOutputError(ValueError):
    """An output that cannot be embeddings: what it is, after "it returned"; the remedy; which item is at fault."""

    def __init__(self, reason: str, remedy: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.position = reason, remedy, position


def embeddings_of(output: object, count: int) -> Embeddings:
    """`output` for `count` items as embeddings, shape (n, D), in a float type of NumPy; `UnfitOutputError` otherwise.

    Taken are: arrays of NumPy in any float type, uncopied, and whatever NumPy makes such an array of; tensors of
    PyTorch, on any device and with or without gradients (bfloat16 becomes float32); lists and tuples of embeddings,
    each a list of numbers, an array or a tensor. A dimension of 1 too many, as in (n, 1, D), is taken off; for one item
    the shape (D,) will do.
    """
    _refuse_whole_outputs(output)
    found = _stacked(output) if isinstance(output, list | tuple) else _floats(_array(output), type(output).__name__)
    if found.ndim == 1 and count == 1:
        found = found[None]
    if found.ndim == 3 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 2:
        raise UnfitOutputError(f"an array of shape {found.shape}", f"Return an array of the shape ({count}, D).")
    return found


def _refuse_whole_outputs(output: object) -> None:
    """A model's output of many parts, or nothing that could be embeddings, with the words that help."""
    kind = type(output).__name__
    if output is None:
        raise UnfitOutputError("None", "Does it end in `return`?")
    if inspect.iscoroutine(output):
        output.close()
    for kinds, remedy in _WHOLE.items():
        if isinstance(output, kinds):
            raise UnfitOutputError(f"a {kind}", remedy)
    get = output.get if isinstance(output, Mapping) else partial(getattr, output)
    has = [name for name in _FIELDS if get(name, None) is not None]
    if has:
        raise UnfitOutputError(f"a {kind} with {' and '.join(has)}", f"Return its {' or '.join(has)}.")
    if isinstance(output, Mapping):
        names = ", ".join(map(str, list(output)[:5]))
        raise UnfitOutputError(f"a {kind} of {names or 'nothing'}", "Return the array of embeddings in it.")


def _stacked(items: list[Any] | tuple[Any, ...]) -> Embeddings:
    if all(isinstance(item, list | tuple) and all(type(value) in (int, float) for value in item) for item in items):
        # Numbers alone: one conversion of all is many times as fast.
        _require_even([len(item) for item in items])
        return _floats(np.array(items), "list")
    if all(np.ndim(item) == 0 and isinstance(item, float | np.floating) for item in items):
        return np.array(items)
    parts = [_part(item, k) for k, item in enumerate(items)]
    flat = [part[0] if part.ndim == 2 and len(part) == 1 else part for part in parts]
    if any(part.ndim != 1 for part in flat):
        what = f"a {type(items).__name__} of {len(items)} arrays"
        shapes = ", ".join(str(part.shape) for part in parts[:3])
        remedy = "Return one array with an embedding an item; batches are joined with torch.cat or numpy.concatenate."
        raise UnfitOutputError(f"{what} of shapes {shapes}", remedy)
    _require_even([len(part) for part in flat])
    return np.stack(flat)


def _part(item: object, position: int) -> Embeddings:
    try:
        _refuse_whole_outputs(item)
        return _floats(_array(item), type(item).__name__)
    except UnfitOutputError as error:
        raise UnfitOutputError(f"{error.reason} as an embedding", error.remedy, position) from error


def _require_even(lengths: list[int]) -> None:
    position = next((k for k, length in enumerate(lengths) if length != lengths[0]), None)
    if position is not None:
        what = f"embeddings of different dimensions, {lengths[0]} and {lengths[position]}"
        raise UnfitOutputError(what, "Return embeddings of one dimension for all items.", position)


def _array(output: Any) -> npt.NDArray[Any]:
    """`output` as an array of some type; the bits of a float type that NumPy lacks are widened."""
    torch = sys.modules.get("torch")
    kind = type(output).__name__
    try:
        if torch is not None and isinstance(output, torch.Tensor):
            return _of_tensor(output, torch)
        if callable(getattr(output, "toarray", None)):
            raise UnfitOutputError(f"a sparse {kind}", "Return its toarray().")
        if isinstance(output, np.ma.MaskedArray) and np.ma.is_masked(output):
            raise UnfitOutputError("an array with masked numbers", "Fill them, or leave such items out.")
        return np.asarray(output)
    except UnfitOutputError:
        raise
    # Tensors and arrays of other libraries raise what they like, such as their hint on how to come off a device.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UnfitOutputError(f"a {kind} that cannot be made an array ({reason})", "Return a NumPy array.") from error


def _of_tensor(tensor: Any, torch: Any) -> npt.NDArray[Any]:
    for unfit, what, remedy in (
        (tensor.is_meta, "a tensor on the device meta, which holds no numbers", "Load the model's weights."),
        (tensor.is_quantized, "a quantised tensor", "Return its dequantize()."),
        (tensor.is_nested, "a nested tensor", "Return one tensor of the shape (n, D)."),
        (tensor.layout is not torch.strided, "a sparse tensor", "Return its to_dense()."),
    ):
        if unfit:
            raise UnfitOutputError(what, remedy)
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.cpu().resolve_conj().resolve_neg().numpy()  # type: ignore[no-any-return]


def _floats(array: npt.NDArray[Any], kind: str) -> Embeddings:
    if array.dtype.kind == "V" and array.dtype.names is None and "float" in array.dtype.name:
        # bfloat16 and the 8-bit floats of other libraries.
        array = array.astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        what = "that is no array of numbers" if array.dtype.kind in "OSU" else f"of numbers of the type {array.dtype}"
        raise UnfitOutputError(f"a {kind} {what}", _FLOATS)
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
