"""The loop: features -> losses -> balancer -> step -> queue, with validation, checkpoints and exact resume."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import CrossScores, Pair, cross_scores
from distilvl.evaluation.score import Score, score
from distilvl.evaluation.teacher import in_teacher_space
from distilvl.objectives import MultiscaleObjective
from distilvl.objectives.balancers import Balancer
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training import run_folder
from distilvl.training.console import RunView, training_view
from distilvl.training.distributed import gather_random, own_random, require_same_number
from distilvl.training.gradcache import ChunkedEncoder
from distilvl.training.materials import Materials
from distilvl.training.optimizer import average_of, build_optimizer, rate_factor, set_rates
from distilvl.training.run_folder import Listener, MetricsLog, RunFolder
from distilvl.training.sources import BatchSource, StepInputs
from distilvl.training.student import encode_images_of, encode_texts_of

_SOURCE = "source."
_AT_FIRST = -1  # the epoch of the weights that a finished student brings


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    step: int = 0
    best_rsum: float = -1.0
    best_epoch: int = -2  # from 0; -1: as a finished student began
    best_score: dict[str, Any] = field(default_factory=dict)
    best_cross: dict[str, Any] = field(default_factory=dict)  # its cross scores by name, where there are any
    seconds: float = 0.0


class Trainer:
    """Trains `encoder`, in place, on what `source` brings, scoring `val` after each epoch; `held`, or it, chooses.

    Metrics and checkpoints go to `folder`; a checkpoint found there is continued, or refused where its run had other
    `fingerprints` of what the batches are drawn from.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: Config,
        encoder: DualEncoder,
        objective: MultiscaleObjective,
        balancer: Balancer,
        source: BatchSource,
        val: Materials,
        folder: RunFolder,
        fingerprints: Mapping[str, str] | None = None,
        held: Materials | None = None,
    ) -> None:
        self.fabric, self.config, self.folder, self.fingerprints = fabric, config, folder, dict(fingerprints or {})
        self.held = held
        self.source, self.val, self.encoder, self.balancer = source, val, encoder, balancer
        self.total_steps = config.training.epochs * source.batches_per_epoch
        self.objective = objective.to(fabric.device)
        optimizer = build_optimizer(encoder, config.optimizer, self.objective.parameters())
        self.model, self.optimizer = fabric.setup(encoder, optimizer)
        self.chunked = ChunkedEncoder(fabric, self.model, config.training.gradcache_chunks)
        # The running mean of the weights, where there is one, is what is scored and kept.
        self.average = average_of(encoder, config.training.ema) if config.training.ema else None
        self.kept = cast(DualEncoder, self.average.module) if self.average else encoder
        self.progress = Progress()

    def update(self, inputs: StepInputs) -> dict[str, Any]:
        """The method on one screen: z, u -> L_m -> w_m s_m -> L -> step -> queue."""
        set_rates(self.optimizer, rate_factor(self.progress.step, self.total_steps, self.config.schedule))
        total = len(inputs.ids), len(inputs.text_ids)
        share, mask = self.config.training.token_dropout, inputs.attention_mask
        visible = drop_tokens(mask, share) if share and mask is not None else mask
        z_image, z_text = self.chunked.encode(inputs.images, inputs.texts, visible, total)
        losses = self._losses(z_image, z_text, inputs)
        weights = self.balancer(losses, (z_image, z_text))
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()

        self.chunked.backward(loss)
        norm, most = None, self.config.optimizer.clip_norm
        if most:
            norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=most, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.encoder)
        if inputs.u_image is not None and inputs.u_text is not None:
            self.objective.fill(inputs.u_image, inputs.ids, inputs.u_text, inputs.text_ids)
        return {"loss": loss, "losses": losses, "grad_norm": norm}

    def _losses(self, z_image: Tensor, z_text: Tensor, inputs: StepInputs) -> dict[str, Tensor]:
        """The raw losses; from here on an image stands beside each of its captions, one row a pair."""
        image_of, u_image, ids = inputs.image_of, inputs.u_image, [inputs.ids, inputs.text_ids]
        if image_of is not None:  # pairs: one id stands for both sides
            z_image, u_image, ids = z_image[image_of], None if u_image is None else u_image[image_of], ids[1:]
        return self.objective(z_image, z_text, u_image, inputs.u_text, *ids)  # type: ignore[no-any-return]

    def fit(self, listeners: Sequence[Listener] = ()) -> Progress:
        """Run, or continue, to the last epoch; afterwards `encoder` holds the best epoch's weights.

        In the first process the `listeners` are told of all readings.
        """
        self._resume()
        self.encoder.train()
        view_of = training_view(self.total_steps, self.progress.step, self.config.training.epochs)
        with view_of as view, self._log([view, *listeners]) as log:
            if self.config.student.folder is not None and self.progress.best_epoch < _AT_FIRST:
                self._validate(_AT_FIRST, log)  # a finished student never ends below where it began
            while self.progress.step < self.total_steps:
                epoch, done = divmod(self.progress.step, self.source.batches_per_epoch)
                self._epoch(epoch, done, log, view)
        self.fabric.barrier()
        self.encoder.load_state_dict(run_folder.load_tensors(self.folder.best)[0])
        return self.progress

    def _log(self, listeners: Sequence[Listener]) -> AbstractContextManager[MetricsLog | None]:
        first = self.fabric.is_global_zero
        return MetricsLog(self.folder.metrics, self.progress.step, listeners) if first else nullcontext()

    def _epoch(self, epoch: int, done: int, log: MetricsLog | None, view: RunView) -> None:
        config, pairs, counted, started = self.config.training, 0, time.monotonic(), time.monotonic()
        for inputs in self.source.epoch(epoch, skip=done):
            metrics = self.update(inputs)
            pairs += len(inputs.text_ids)
            step = self.progress.step = self.progress.step + 1
            last_of_epoch = step % self.source.batches_per_epoch == 0
            if log is not None and (step % config.log_every == 0 or last_of_epoch):
                readings = self._readings(metrics)
                pairs_per_s, pairs, counted = pairs / max(time.monotonic() - counted, 1e-9), 0, time.monotonic()
                log.write({"step": step, "epoch": epoch, **readings, "pairs_per_s": round(pairs_per_s, 2)})
            if step % config.checkpoint_every == 0 and not last_of_epoch:
                started = self._add_time(started)
                self._save_last()
            view.advance(1)
        self.balancer.end_epoch()
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            self._validate(epoch, log)
        self._add_time(started)
        self._save_last()

    def _add_time(self, started: float) -> float:
        now = time.monotonic()
        self.progress.seconds += now - started
        return now

    def _readings(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        norm = metrics["grad_norm"]
        return {
            "loss": float(metrics["loss"].detach()),
            "losses": {name: float(value.detach()) for name, value in metrics["losses"].items()},
            **self.balancer.report,
            "lr": {group["name"]: group["lr"] for group in self.optimizer.param_groups},
            "grad_norm": None if norm is None else float(norm),
        }

    def _validate(self, epoch: int, log: MetricsLog | None) -> None:
        if log is None:
            return
        embeddings = encode_split(self.fabric, self.kept, self.val)
        scored = score_split(embeddings, self.val)
        line, choosing = {"step": self.progress.step, "epoch": epoch, "val": scored.as_dict()}, scored.rsum
        if self.held is not None:
            choosing = score_split(encode_split(self.fabric, self.kept, self.held), self.held).rsum
            line["held_out_rsum"] = choosing
        log.write(line)
        if choosing > self.progress.best_rsum:
            self.progress.best_rsum, self.progress.best_epoch = choosing, epoch
            self.progress.best_score = scored.as_dict()
            crossed = cross_score(embeddings, self.val) if in_teacher_space(self.config) else None
            self.progress.best_cross = {} if crossed is None else crossed.as_dict()
            run_folder.save_tensors(dict(self.kept.state_dict()), {"epoch": epoch, "rsum": choosing}, self.folder.best)

    def _state_modules(self) -> dict[str, torch.nn.Module]:
        modules = {"student": self.encoder, "objective": self.objective}
        return modules if self.average is None else {**modules, "average": self.average}

    def _save_last(self) -> None:
        packed = gather_random(self.fabric, run_folder.pack_state(self._state_modules(), self.optimizer))
        packed |= {f"{_SOURCE}{name}": tensor for name, tensor in self.source.state().items()}
        if self.fabric.is_global_zero:
            metadata: dict[str, Any] = {"progress": asdict(self.progress), "balancer": self.balancer.state_dict()}
            metadata |= {"processes": self.fabric.world_size, "fingerprints": self.fingerprints}
            run_folder.save_tensors(packed, metadata, self.folder.last)

    def _resume(self) -> None:
        if not self.folder.last.is_file():
            return
        packed, metadata = run_folder.load_tensors(self.folder.last)
        require_same_number(metadata.get("processes", 1), self.fabric)
        require_same_data(metadata.get("fingerprints", {}), self.fingerprints)
        run_folder.unpack_state(own_random(self.fabric, packed), self._state_modules(), self.optimizer)
        self.source.restore(run_folder.under(packed, _SOURCE))
        self.balancer.load_state_dict(metadata["balancer"])
        self.progress = Progress(**metadata["progress"])


def drop_tokens(attention_mask: Tensor, share: float) -> Tensor:
    """A mask (N, L) in which each token but the first, which pooling reads, was hidden with probability `share`."""
    kept = torch.rand(attention_mask.shape, device=attention_mask.device) >= share
    kept[:, 0] = True
    return attention_mask * kept


def require_same_data(stored: Mapping[str, str], now: Mapping[str, str]) -> None:
    """That a run continues with the data that it began with; older checkpoints have no fingerprints of it."""
    for name, fact in stored.items():
        if now.get(name) != fact:
            raise DistilvlError(
                f"the {name.replace('_', ' ')} changed since this run began: other images, captions or vocabulary.",
                "Choose another --out, or put the old data back and repeat the command.",
            )


def score_student(fabric: Fabric, encoder: DualEncoder, split: Materials) -> Score:
    """Retrieval score of the student on `split`, in fp32 whatever training computes in, as `distilvl eval` finds it."""
    return score_split(encode_split(fabric, encoder, split), split)


def score_split(features: Pair, split: Materials) -> Score:
    """Retrieval score of image and text features of `split`."""
    return score(*features, split.caption_image, split.groups)


def score_teacher(split: Materials) -> Score | None:
    """Retrieval score of the teacher's stored features of the same items."""
    return None if (features := _stored(split)) is None else score_split(features, split)


def cross_score(embeddings: Pair, split: Materials) -> CrossScores | None:
    """Cross scores of the student's embeddings with the teacher's stored features of the same items, if there are."""
    features = _stored(split)
    if features is None:
        return None
    return cross_scores(embeddings, features, lambda images, texts: score_split((images, texts), split))


def _stored(split: Materials) -> Pair | None:
    if split.teacher is None:
        return None
    return split.teacher.images.all().numpy(), split.teacher.texts.all().numpy()


def encode_split(fabric: Fabric, encoder: DualEncoder, split: Materials) -> Pair:
    """The student's embeddings of all images (n, D) and captions (m, D), in eval mode, which it leaves as it was."""
    was_training = encoder.training
    encoder.eval()
    images = encode_images_of(fabric, encoder.encode_images, split.images, full=True)
    if split.pooled_texts is None:
        texts = encode_texts_of(fabric, encoder, encoder.encode_texts, split.tokens, full=True)
    else:
        texts = encode_images_of(fabric, encoder.encode_texts, split.pooled_texts, full=True)
    encoder.train(was_training)
    return images, texts
