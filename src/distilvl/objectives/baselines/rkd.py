"""RKD, relational distillation by distances and angles (Park et al., CVPR 2019, section 3.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss

COINCIDENT = 1e-6


"""Embeddings this close count as one point: the floor of the authors' code, and about what float32 resolves."""


class RelationalDistance(Loss):
    """RKD-D: the student keeps the teacher's distances within a modality, up to one scale.

        psi(x)_ij = ||x_i - x_j|| / mu,   mu = the mean of ||x_i - x_j|| over the pairs i != j
        L         = mean_ij huber(psi(z)_ij - psi(u)_ij),   huber(d) = d^2 / 2 if |d| < 1, else |d| - 1/2

    for images plus for texts; the mean is over all N^2 entries, the diagonal's zeros included, as in the authors' code.
    A relation and not a negative: embeddings of one image need no mask. At distance 0 there is no gradient.

    >>> import torch
    >>> from distilvl.objectives.baselines import RelationalDistance
    >>> loss = RelationalDistance()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "rkd_distance", "distances within a modality (RKD-D)"
    formula = (
        "per modality mean_ij huber( psi(z)_ij - psi(u)_ij ), psi(x)_ij = norm(x_i - x_j) / their mean over i != j"
    )

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = map(_relative_distances, batch.embeddings)
        return F.smooth_l1_loss(z_image, u_image) + F.smooth_l1_loss(z_text, u_text)


class RelationalAngle(Loss):
    """RKD-A: the student keeps the angles of the teacher's triangles within a modality.

        e_ij      = (x_i - x_j) / ||x_i - x_j||
        psi(x)_ijk = e_ij . e_kj,   the cosine of the angle at x_j
        L          = mean_ijk huber(psi(z)_ijk - psi(u)_ijk)

    for images plus for texts, over all N^3 entries, those with i = j or k = j being 0 as in the authors' code; e_ij is
    0, without a gradient, where two embeddings coincide. Takes N x N x D + N^3 numbers of memory: meant for batches of
    some hundred items at most. No mask, as for `RelationalDistance`.

    >>> import torch
    >>> from distilvl.objectives.baselines import RelationalAngle
    >>> loss = RelationalAngle()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "rkd_angle", "angles within a modality (RKD-A)"
    formula = "per modality mean_ijk huber( cos angle(z_i, z_j, z_k) - cos angle(u_i, u_j, u_k) ), the angle at j"

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = map(_angles, batch.embeddings)
        return F.smooth_l1_loss(z_image, u_image) + F.smooth_l1_loss(z_text, u_text)


def _relative_distances(x: Tensor) -> Tensor:
    """||x_i - x_j|| / mu (N, N), all 0 where all embeddings are the same."""
    # By differences: the expanded square loses the distances of near points, and its root has no gradient at 0.
    distances: Tensor = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = max(len(x) * (len(x) - 1), 1)
    return distances / (distances.sum() / pairs).clamp(min=COINCIDENT)


def _angles(x: Tensor) -> Tensor:
    """psi_ijk as (j, i, k), (N, N, N)."""
    differences = x[None, :, :] - x[:, None, :]
    lengths = torch.linalg.vector_norm(differences, dim=2, keepdim=True)
    # Dividing by infinity gives 0 with gradient 0, where dividing by a tiny floor would give a huge one.
    directions = differences / lengths.masked_fill(lengths <= COINCIDENT, torch.inf)
    angles: Tensor = directions @ directions.transpose(1, 2)
    return angles
