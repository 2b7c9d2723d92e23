"""One run in several processes, a device each: who encodes which items, and what all of them must have in common.

Every process draws the same batches and encodes its share of the items; `gradcache` gathers the embeddings, from which
all compute the same.
"""

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from distilvl.errors import DistilvlError
from distilvl.io.progress import silence

Precision = Literal["bf16-mixed", "32-true"]
Result = TypeVar("Result")

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for each other: extraction may take days. One that ends ends the others at once."""

# Buffers of a student are constants, never to be broadcast. Older releases of torch have another name for it.
_NEW = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_KEEP_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW else "broadcast_buffers": False}


@dataclass(frozen=True)
class Share:
    """Which items of a batch one of several processes encodes: its number from 0, and how many there are."""

    rank: int = 0
    processes: int = 1

    def rows(self, total: int) -> slice:
        """The rows of this process, of `total`: neighbours, and at most one row more than any other process."""
        return slice(total * self.rank // self.processes, total * (self.rank + 1) // self.processes)


def start_fabric(accelerator: str, precision: Precision, devices: int | None = None) -> Fabric:
    """Fabric for this process, once all processes of the run have found each other.

    Under `torchrun` or `fabric run` the processes are there already, and `devices` is not needed; otherwise this starts
    `devices - 1` more, which run the same script. Only the first process reports progress. `DistilvlError` for another
    number than the launcher started, no such device, or more devices than there are.
    """
    launched = distributed.is_available() and distributed.is_torchelastic_launched()
    here, everywhere = (int(os.environ[f"{of}WORLD_SIZE"]) if launched else None for of in ("LOCAL_", ""))
    if here is not None and devices not in (None, here):
        problem = f"--devices is {devices}, and the launcher started {here} processes on this machine."
        raise DistilvlError(problem, "Leave --devices out: the launcher says how many.")
    local = here or devices or 1
    processes = everywhere or local
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it reports each step of the start
    try:
        if processes == 1:
            return Fabric(accelerator=accelerator, devices=1, precision=precision)
        how: dict[str, Any] = {"num_nodes": processes // local, "precision": precision}
        how["strategy"] = DDPStrategy(timeout=LONGEST_WAIT, **_KEEP_BUFFERS)
        fabric = Fabric(accelerator=accelerator, devices=local, **how)
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        remedy = "Use --device auto or cpu." if processes == 1 else "Use a device for each, or --device cpu."
        where = f"on {accelerator}" if processes == 1 else f"in {_processes(processes)}"
        raise DistilvlError(f"cannot train {where}: {reason}.", remedy) from error
    if fabric.global_rank > 0:
        silence()
        logging.getLogger("distilvl").setLevel(logging.ERROR)
    return fabric


def resolve_precision(wanted: str, accelerator: str = "auto") -> Precision:
    """Fabric's name for `auto`, `bf16` or `fp32`; `auto` takes bf16 where the device multiplies it natively."""
    if wanted == "auto":
        wanted = "bf16" if _has_bf16(accelerator) else "fp32"
    return "bf16-mixed" if wanted == "bf16" else "32-true"


def dtype_of(fabric: Fabric) -> torch.dtype:
    """What the towers of a run compute in: bfloat16 or float32."""
    return torch.bfloat16 if fabric.strategy.precision.precision == "bf16-mixed" else torch.float32


def _has_bf16(accelerator: str) -> bool:
    if accelerator != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch do not tell what the processor can do; they get fp32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _started() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def is_first_process() -> bool:
    """Whether this process is the one that writes and speaks; true before `start_fabric`."""
    return not _started() or distributed.get_rank() == 0


def share_of(fabric: Fabric) -> Share:
    """The share of this process."""
    return Share(fabric.global_rank, fabric.world_size)


def gather_rows(fabric: Fabric, own: Tensor, total: int) -> Tensor:
    """All embeddings of a batch (total, D), in order and without a graph, from those of each process's `Share`."""
    share = share_of(fabric)
    if share.processes == 1:
        return own
    parts = [Share(rank, share.processes).rows(total) for rank in range(share.processes)]
    sizes = [part.stop - part.start for part in parts]
    if len(own) != sizes[share.rank]:
        raise DistilvlError(
            f"process {share.rank} encoded {len(own)} rows of a batch of {total}, its share is {sizes[share.rank]}.",
            "This source of batches works in one process only.",
        )
    blocks = _gather(F.pad(own.detach(), (0, 0, 0, max(sizes) - len(own))), share.processes)
    return torch.cat([block[:size] for block, size in zip(blocks, sizes, strict=True)])


def _gather(own: Tensor, processes: int) -> list[Tensor]:
    found = [torch.empty_like(own) for _ in range(processes)]
    distributed.all_gather(found, own.contiguous())
    return found


def sum_arrays(arrays: Sequence[npt.NDArray[np.float64]], fabric: Fabric) -> None:
    """Make each array, of the same shape in all processes, the sum over these, in place and on the CPU."""
    if fabric.world_size == 1:
        return
    group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    try:
        for array in arrays:
            distributed.all_reduce(torch.from_numpy(array), group=group)
    finally:
        distributed.destroy_process_group(group)


def gather_objects(own: Any) -> list[Any]:
    """`own` of every process, in order."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def rank_zero_first(fabric: Fabric, prepare: Callable[[], Result]) -> Result:
    """`prepare()` in process 0, then in the others; should it fail there, these leave with exit code 2, in silence."""
    if fabric.world_size == 1:
        return prepare()
    group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    failed = torch.ones((), dtype=torch.int64)
    try:
        if fabric.global_rank > 0:
            distributed.broadcast(failed, 0, group=group)
            if failed:
                raise SystemExit(2)
            return prepare()
        try:
            result = prepare()
            failed.zero_()
        finally:
            distributed.broadcast(failed, 0, group=group)
        return result
    finally:
        distributed.destroy_process_group(group)


def leave() -> None:
    """End what `start_fabric` began, before this process exits: beside threads of gloo it would die of SIGABRT.

    Not for the way out after an error, where NCCL waits for processes that will not answer.
    """
    if _started():
        distributed.destroy_process_group()


def require_agreement(fabric: Fabric, **facts: str) -> None:
    """That all processes start from the same: `DistilvlError` in one of which a fact differs from process 0's."""
    for name, first in fabric.broadcast(facts).items():
        if facts[name] != first:
            remedy = "Give all machines the same files, packages and kind of device."
            raise DistilvlError(f"process {fabric.global_rank} has other {name} than process 0.", remedy)


def seed_process(fabric: Fabric, seed: int) -> None:
    """Random numbers of its own, for dropout, for each process but the first, which keeps those of a single one."""
    if fabric.global_rank > 0:
        torch.manual_seed(int(np.random.SeedSequence((seed, fabric.global_rank)).generate_state(1)[0]))


def require_same_number(stored: int, fabric: Fabric) -> None:
    """That a checkpoint of `stored` processes is continued by as many, since each has its own random state."""
    if stored != fabric.world_size:
        problem = f"this run was begun in {_processes(stored)} and cannot go on in {_processes(fabric.world_size)}."
        raise DistilvlError(problem, f"Continue it in {_processes(stored)}, or choose another --out.")


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def gather_random(fabric: Fabric, packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """`packed` with the random states of all processes in place of this one's: (N, bytes) each; see `pack_state`."""
    if fabric.world_size == 1:
        return packed
    states = {key: state.to(fabric.device) for key, state in packed.items() if key.startswith("random.")}
    return packed | {key: torch.stack(_gather(state, fabric.world_size)).cpu() for key, state in states.items()}


def own_random(fabric: Fabric, packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `gather_random` was given in this process."""
    if fabric.world_size == 1:
        return packed
    # A generator takes no view into a larger tensor.
    own = {key: state[fabric.global_rank].clone() for key, state in packed.items() if key.startswith("random.")}
    return packed | own
