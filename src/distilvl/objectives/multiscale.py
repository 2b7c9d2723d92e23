"""All losses of a step, by name: features in, the raw L_m of eq. 5-14 out, ready for a balancer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.objectives.baselines import (
    ClipKdFeature,
    ClipKdInteractive,
    ClipKdRelation,
    ContrastiveRepresentationDistillation,
    DynamicContrastiveDistillation,
    FlowDistillation,
    OpenClipDistillation,
    RelationalAngle,
    RelationalDistance,
    SoftTargetDistillation,
)
from distilvl.objectives.contrastive import ContrastiveDistillation
from distilvl.objectives.distribution import QueueDistribution
from distilvl.objectives.feature import FeatureDistillation
from distilvl.objectives.hard_negative import HardNegativeDistillation
from distilvl.objectives.infonce import InfoNCE
from distilvl.objectives.queue import Negatives, TeacherQueue
from distilvl.objectives.similarity import SimilarityDistillation


def truncate(rows: Tensor, width: int) -> Tensor:
    """The first `width` columns of rows (N, D), made unit rows: (N, width)."""
    return F.normalize(rows[:, :width], dim=1)


class Narrow:
    """A queue at a part of its width, as `Negatives`.

    Args:
        queue: features (K, D) and image ids (K,).
        width: below D.
    """

    def __init__(self, queue: Negatives, width: int) -> None:
        self.features = truncate(queue.features, width)
        self.ids = queue.ids


BASELINES: dict[str, type[nn.Module]] = {
    "kd": SoftTargetDistillation,
    "fsp": FlowDistillation,
    "dcd": DynamicContrastiveDistillation,
    "clipkd_feature": ClipKdFeature,
    "clipkd_relation": ClipKdRelation,
    "clipkd_interactive": ClipKdInteractive,
    "rkd_distance": RelationalDistance,
    "rkd_angle": RelationalAngle,
    "openclip": OpenClipDistillation,
    "crd": ContrastiveRepresentationDistillation,
}
"""Losses of other systems, by name."""

LOSSES = ("cd", "fd", "sd", "hnd", "qd", "infonce", *BASELINES)
"""The losses there are; all but `infonce` compare with the teacher."""

QUEUED = ("cd", "qd", "crd")
"""Those that read the queues."""


PAIRLESS = ("cd", "fd", "sd", "hnd", "qd", "crd")
"""Those that also work on images and texts which are no pairs; HND with its terms within a modality."""


class MultiscaleObjective(nn.Module):
    """The chosen losses of a batch, and the two queues that contrastive distillation reads.

    One step of training is

        losses = objective(z_image, z_text, u_image, u_text, ids)
        weights = balancer(losses)
        sum(weights[name] * losses[name] for name in losses).backward()
        optimizer.step()
        objective.fill(u_image, ids, u_text, ids)

    Args:
        dim: D, width of the shared space.
        losses: which of `LOSSES` to compute.
        queue_size: K_q of each modality; without a loss of `QUEUED` no queue is kept.
        widths: Matryoshka (Kusupati et al., NeurIPS 2022): widths below `dim` at which every loss is taken once more,
            of the first columns of all rows, made unit rows again; a loss is then its mean over `dim` and these.
        contrastive, similarity, hard_negative, distribution, infonce: the losses' own settings; the paper's by default.
        baselines: losses of other systems with their settings, by their name in `BASELINES`.

    Raises:
        DistilvlError: no loss, or one that does not exist; a width that is not below `dim`.
    """

    def __init__(
        self,
        dim: int,
        losses: Sequence[str] = ("cd", "fd", "sd", "hnd"),
        *,
        queue_size: int = 8192,
        widths: Sequence[int] = (),
        contrastive: ContrastiveDistillation | None = None,
        similarity: SimilarityDistillation | None = None,
        hard_negative: HardNegativeDistillation | None = None,
        distribution: QueueDistribution | None = None,
        infonce: InfoNCE | None = None,
        baselines: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        unknown = sorted(set(losses) - set(LOSSES))
        if unknown or not losses:
            wrong = f"there is no loss named {unknown[0]!r}." if unknown else "no loss is chosen."
            raise DistilvlError(wrong, f"Choose from {', '.join(LOSSES)}.")
        if wide := [width for width in widths if not 0 < width < dim]:
            raise DistilvlError(f"objective.widths has {wide[0]}.", f"Widths lie below the full one, {dim}.")
        self.losses, self.widths = tuple(losses), tuple(widths)
        self.contrastive = contrastive or ContrastiveDistillation()
        self.feature = FeatureDistillation()
        self.similarity = similarity or SimilarityDistillation()
        self.hard_negative = hard_negative or HardNegativeDistillation()
        self.distribution = distribution or QueueDistribution()
        self.infonce = infonce or InfoNCE()
        chosen = {name: BASELINES[name] for name in losses if name in BASELINES}
        self.baselines = nn.ModuleDict({name: (baselines or {}).get(name) or cls() for name, cls in chosen.items()})
        size = queue_size if set(QUEUED) & set(losses) else 0
        self.image_queue = TeacherQueue(size, dim)
        self.text_queue = TeacherQueue(size, dim)

    @property
    def needs_teacher(self) -> bool:
        """Whether any chosen loss compares with teacher features."""
        return self.losses != ("infonce",)

    def forward(
        self,
        z_image: Tensor,
        z_text: Tensor,
        u_image: Tensor | None,
        u_text: Tensor | None,
        ids: Tensor,
        text_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The raw losses L_m, 0-d, in the order chosen; those of eq. 5-9 summed over both modalities.

        Args:
            z_image, z_text: student rows (N, D).
            u_image, u_text: teacher rows (N, D); may be None when only `infonce` is chosen.
            ids: image of each row, (N,) int64.
            text_ids: when images and texts are no pairs: ids of the texts, (M,) with M text rows; only for `PAIRLESS`.

        Raises:
            DistilvlError: teacher features are missing, or of another shape than the student's; or a loss that
                needs pairs gets none.
        """
        if text_ids is not None:
            require_pairless(self.losses)
        rows = [z_image, z_text]
        if self.needs_teacher:
            rows += [_like_student(u_image, z_image), _like_student(u_text, z_text)]
        found = [self._losses(rows, self.image_queue, self.text_queue, ids, text_ids)]
        for width in self.widths:
            image, text = Narrow(self.image_queue, width), Narrow(self.text_queue, width)
            found.append(self._losses([truncate(x, width) for x in rows], image, text, ids, text_ids))
        return found[0] if len(found) == 1 else {name: _mean([each[name] for each in found]) for name in self.losses}

    def _losses(
        self, rows: list[Tensor], image: Negatives, text: Negatives, ids: Tensor, text_ids: Tensor | None
    ) -> dict[str, Tensor]:
        """The losses of rows of one width: z^v, z^t and, with a teacher, u^v, u^t."""
        if not self.needs_teacher:
            return {"infonce": self.infonce(*rows, ids)}
        z_image, z_text, u_image, u_text = rows
        of_texts = ids if text_ids is None else text_ids
        cd, fd, sd, qd = self.contrastive, self.feature, self.similarity, self.distribution
        formulas = {
            "cd": lambda: cd(z_image, u_image, image, ids) + cd(z_text, u_text, text, of_texts),
            "fd": lambda: fd(z_image, u_image) + fd(z_text, u_text),
            "sd": lambda: sd(z_image, u_image) + sd(z_text, u_text),
            "hnd": lambda: self.hard_negative(*rows, ids, text_ids),
            "qd": lambda: qd(z_image, u_image, image, text) + qd(z_text, u_text, image, text),
            "infonce": lambda: self.infonce(z_image, z_text, ids),
            "crd": lambda: (
                self.baselines["crd"](z_image, u_image, image, ids)
                + self.baselines["crd"](z_text, u_text, text, of_texts)
            ),
        }
        return {
            name: formulas[name]() if name in formulas else self.baselines[name](*rows, ids) for name in self.losses
        }

    def fill(self, image_features: Tensor, image_ids: Tensor, text_features: Tensor, text_ids: Tensor) -> None:
        """Enqueue teacher features, (n, D) with ids (n,), of any number for each modality.

        After a step, the batch's, so that no row is its own negative. Before the first step, stored ones: that avoids
        the empty queue with which CD is 0 and its scale s_m explodes.
        """
        self.image_queue.enqueue(image_features, image_ids)
        self.text_queue.enqueue(text_features, text_ids)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def require_pairless(losses: Sequence[str]) -> None:
    """`DistilvlError` that names the first of `losses` which needs images with their captions; quiet without one."""
    for name in losses:
        if name not in PAIRLESS:
            raise DistilvlError(
                f"loss {name!r} needs images with their captions.",
                f"Without pairs, choose from {', '.join(PAIRLESS)}.",
            )


def _like_student(u: Tensor | None, z: Tensor) -> Tensor:
    if u is None:
        raise DistilvlError("a distillation loss got no teacher features.", "Give some, or train with infonce only.")
    if u.shape != z.shape:
        raise DistilvlError(
            f"teacher features of shape {tuple(u.shape)} meet student features of shape {tuple(z.shape)}.",
            "Give the student the teacher's width (student.width), or leave it unset.",
        )
    return u
