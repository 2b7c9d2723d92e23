"""All losses of a step, by name: embeddings in, the raw L_m of eq. 5-14 out, ready for a balancer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.objectives.loss import LOSSES, PAPER_LOSSES, Batch, Loss
from distilvl.objectives.queue import Negatives, QueueSettings, QueueView, TeacherQueue
from distilvl.objectives.registry import Settings

QUEUE_SECTION = "cd"  # where the queues' settings stand, also where CD itself is not chosen


def settings_of(losses: Sequence[str]) -> dict[str, type[Settings]]:
    """The sections of `objective` that belong to these losses, each with its model; raises as `LOSSES[name]`."""
    chosen = [LOSSES[name] for name in losses]
    found: dict[str, type[Settings]] = {}
    for loss in chosen:
        section = loss.section or loss.name
        if loss.settings.model_fields and found.setdefault(section, loss.settings) is not loss.settings:
            raise DistilvlError(f"two losses have other settings in objective.{section}.", "Choose one of them.")
    if any(loss.reads_queue for loss in chosen):
        found.setdefault(QUEUE_SECTION, QueueSettings)
    return found


def require_pairless(losses: Sequence[str]) -> None:
    """`DistilvlError` that names the first of `losses` which needs images with their captions; quiet without one."""
    _require_pairless(LOSSES[name] for name in losses)


def _require_pairless(losses: Iterable[Any]) -> None:
    for loss in losses:
        if loss.needs_pairs:
            pairless = [name for name, other in LOSSES.shipped.items() if not other.needs_pairs]
            remedy = f"Without pairs, choose from {', '.join(pairless)}."
            raise DistilvlError(f"loss {loss.name!r} needs images with their captions.", remedy)


def truncate(embeddings: Tensor, dim: int) -> Tensor:
    """The first `dim` columns of embeddings (N, D), L2-normalised: (N, dim)."""
    return F.normalize(embeddings[:, :dim], dim=1)


def truncate_queue(queue: Negatives, dim: int) -> QueueView:
    """A queue of the first `dim` columns of its features."""
    return QueueView(truncate(queue.features, dim), queue.ids)


class MultiscaleObjective(nn.Module):
    """The chosen losses of a batch, and the two queues of teacher features; `Trainer.update` is a step with it.

    Args:
        dim: D, the embedding dimension.
        losses: names of losses, which have their default settings then, or losses.
        queue_size: K_q of each modality; where no loss reads the queues, none is kept.
        dims: Matryoshka (Kusupati et al., NeurIPS 2022): dimensions below `dim` at which every loss is taken once more,
            of the first columns of all embeddings, L2-normalised again; a loss is then its mean over `dim` and these.

    `DistilvlError` for no loss, one that does not exist, or one of `dims` that is not below `dim`.
    """

    def __init__(
        self, dim: int, losses: Sequence[str | Loss] = PAPER_LOSSES, *, queue_size: int = 8192, dims: Sequence[int] = ()
    ) -> None:
        super().__init__()
        if not losses:
            raise DistilvlError("no loss is chosen.", f"Choose from {', '.join(LOSSES.names())}.")
        if wide := [each for each in dims if not 0 < each < dim]:
            raise DistilvlError(f"objective.dims has {wide[0]}.", f"They lie below the full dimension, {dim}.")
        built = [LOSSES[loss]() if isinstance(loss, str) else loss for loss in losses]
        self.dims = tuple(dims)
        self.losses = nn.ModuleDict({loss.name: loss for loss in built})
        self.needs_teacher = any(loss.needs_teacher for loss in built)
        size = queue_size if any(loss.reads_queue for loss in built) else 0
        self.image_queue = TeacherQueue(size, dim)
        self.text_queue = TeacherQueue(size, dim)

    def forward(
        self, z_image: Tensor, z_text: Tensor, u_image: Tensor | None, u_text: Tensor | None, ids: Tensor,
        text_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The raw losses L_m, 0-d, in the order chosen; arguments as in `Batch`.

        `DistilvlError` for teacher features that a loss needs and that are missing or of another shape, and for a loss
        that needs pairs and gets none.
        """
        if text_ids is not None:
            _require_pairless(self.losses.values())
        if self.needs_teacher:
            u_image, u_text = _like_student(u_image, z_image), _like_student(u_text, z_text)
        else:
            u_image, u_text = z_image[:0], z_text[:0]
        batch = Batch(z_image, z_text, u_image, u_text, ids, text_ids, self.image_queue, self.text_queue)
        found = [self._losses(batch), *(self._losses(_truncated(batch, dim)) for dim in self.dims)]
        if len(found) == 1:
            return found[0]
        return {name: torch.stack([each[name] for each in found]).mean() for name in self.losses}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        return {name: loss(batch) for name, loss in self.losses.items()}

    def fill(self, image_features: Tensor, image_ids: Tensor, text_features: Tensor, text_ids: Tensor) -> None:
        """Enqueue teacher features, (n, D) with ids (n,), of any number: after a step, the batch's."""
        self.image_queue.enqueue(image_features, image_ids)
        self.text_queue.enqueue(text_features, text_ids)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; states of version 0.1.0, which kept both temperatures that learn, are read too."""
        state, tau = dict(state_dict), "temperature.log_tau"
        if f"contrastive.{tau}" in state:
            learned = {"cd": state.pop(f"contrastive.{tau}"), "infonce": state.pop(f"infonce.{tau}")}
            # The optimizer's state is by position, with that of cd first.
            if [name for name in self.losses if name in learned] not in (["cd"], ["cd", "infonce"]):
                problem = "an older version began this run, with learned temperatures in another order."
                raise DistilvlError(problem, "Start a new run.")
            state |= {f"losses.{name}.{tau}": value for name, value in learned.items() if name in self.losses}
        return super().load_state_dict(state, strict, assign)


def _truncated(batch: Batch, dim: int) -> Batch:
    z_image, z_text, u_image, u_text = (truncate(rows, dim) for rows in batch.embeddings)
    queues = (truncate_queue(queue, dim) for queue in (batch.image_queue, batch.text_queue))
    return Batch(z_image, z_text, u_image, u_text, batch.ids, batch.text_ids, *queues)


def _like_student(u: Tensor | None, z: Tensor) -> Tensor:
    if u is None:
        raise DistilvlError("a distillation loss got no teacher features.", "Give some, or train with infonce only.")
    if u.shape != z.shape:
        problem = f"teacher features of shape {tuple(u.shape)} meet student embeddings of shape {tuple(z.shape)}."
        remedy = "Give the student the teacher's embedding dimension (student.dim), or leave it unset."
        raise DistilvlError(problem, remedy)
    return u
