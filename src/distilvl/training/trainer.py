"""The loop: features -> losses -> balancer -> step -> queue, with validation, checkpoints and exact resume."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.config import Config
from distilvl.objectives import MultiscaleObjective
from distilvl.objectives.balancers import Balancer
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.batch import StepInputs, drop_tokens
from distilvl.training.checkpoint import load_tensors, pack_state, save_tensors, under, unpack_state
from distilvl.training.console import RunView, training_view
from distilvl.training.distributed import gather_random, own_random, require_same_number
from distilvl.training.gradcache import FeaturePass
from distilvl.training.materials import Materials
from distilvl.training.optimizer import average_of, build_optimizer, rate_factor, set_rates
from distilvl.training.run_folder import Listener, MetricsLog, RunFolder, SilentLog
from distilvl.training.sources import BatchSource
from distilvl.training.student import require_same_data
from distilvl.training.validation import score_student

_SOURCE = "source."


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    step: int = 0
    best_rsum: float = -1.0
    best_epoch: int = -1
    best_score: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Trainer:
    """Trains `encoder` on what `source` brings, scoring `val` after each epoch.

    Args:
        fabric: device, precision and processes.
        config: the resolved configuration.
        encoder: the student; its weights change in place.
        objective: the losses and their queues.
        balancer: their weights.
        source: where the batches come from.
        val: the validation split.
        folder: where metrics and checkpoints go; a checkpoint found there is continued.
        fingerprints: of what the batches are drawn from; a checkpoint of a run with others is refused.
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
    ) -> None:
        self.fabric, self.config, self.folder = fabric, config, folder
        self.fingerprints = dict(fingerprints or {})
        self.source, self.val = source, val
        self.total_steps = config.training.epochs * self.source.batches_per_epoch
        self.encoder = encoder
        self.objective = objective.to(fabric.device)
        self.balancer = balancer
        self.model, self.optimizer = fabric.setup(
            encoder, build_optimizer(encoder, config.optimizer, self.objective.parameters())
        )
        self.features = FeaturePass(fabric, self.model, config.training.gradcache_chunks)
        # The running mean of the weights, where there is one, is what is scored and kept.
        self.average = average_of(encoder, config.training.ema) if config.training.ema else None
        self.kept = cast(DualEncoder, self.average.module) if self.average else encoder
        self.progress = Progress()

    def fit(self, listeners: Sequence[Listener] = ()) -> Progress:
        """Run, or continue, to the last epoch; afterwards `encoder` holds the best epoch's weights.

        Args:
            listeners: told of all readings, in the first process.
        """
        self._resume()
        first = self.fabric.is_global_zero
        self.encoder.train()
        with (
            training_view(self.total_steps, self.progress.step, self.config.training.epochs) as view,
            MetricsLog(self.folder.metrics, self.progress.step, [view, *listeners]) if first else SilentLog() as log,
        ):
            while self.progress.step < self.total_steps:
                epoch, done = divmod(self.progress.step, self.source.batches_per_epoch)
                self._epoch(epoch, done, log, view)
        self.fabric.barrier()
        tensors, _ = load_tensors(self.folder.best)
        self.encoder.load_state_dict(tensors)
        return self.progress

    def _epoch(self, epoch: int, done: int, log: MetricsLog, view: RunView) -> None:
        meter = _Meter()
        started = time.monotonic()
        for inputs in self.source.epoch(epoch, skip=done):
            metrics = self.update(inputs)
            self.progress.step += 1
            meter.count(len(inputs.text_ids))
            step = self.progress.step
            last_of_epoch = step % self.source.batches_per_epoch == 0
            if step % self.config.training.log_every == 0 or last_of_epoch:
                line = {"step": step, "epoch": epoch, **self._readings(metrics), "pairs_per_s": meter.read()}
                log.write(line)
            if step % self.config.training.checkpoint_every == 0 and not last_of_epoch:
                started = self._add_time(started)
                self._save_last()
            view.advance(1)
        self.balancer.end_epoch()
        if (epoch + 1) % self.config.training.validate_every == 0 or epoch + 1 == self.config.training.epochs:
            self._validate(epoch, log)
        self._add_time(started)
        self._save_last()

    def update(self, inputs: StepInputs) -> dict[str, Any]:
        """The method on one screen: z, u -> L_m -> w_m s_m -> L -> step -> queue."""
        set_rates(self.optimizer, rate_factor(self.progress.step, self.total_steps, self.config.schedule))
        z_image, z_text = self.features.encode(
            inputs.images,
            inputs.texts,
            self._visible(inputs.attention_mask),
            (len(inputs.ids), len(inputs.text_ids)),
        )
        losses = self._losses(z_image, z_text, inputs)
        weights = self.balancer(losses, (z_image, z_text))
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()

        self.features.backward(loss)
        norm = None
        if self.config.optimizer.clip_norm:
            norm = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.optimizer.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.encoder)
        if inputs.u_image is not None and inputs.u_text is not None:
            self.objective.fill(inputs.u_image, inputs.ids, inputs.u_text, inputs.text_ids)
        return {"loss": loss, "losses": losses, "grad_norm": norm}

    def _losses(self, z_image: Tensor, z_text: Tensor, inputs: StepInputs) -> dict[str, Tensor]:
        """The raw losses; from here on an image stands beside each of its captions, one row a pair."""
        if inputs.image_of is None:
            u_image, u_text = inputs.u_image, inputs.u_text
            return self.objective(z_image, z_text, u_image, u_text, inputs.ids, inputs.text_ids)  # type: ignore[no-any-return]
        pairs = inputs.of_pairs
        z_image = z_image[inputs.image_of]
        return self.objective(z_image, z_text, pairs.u_image, pairs.u_text, pairs.ids)  # type: ignore[no-any-return]

    def _visible(self, attention_mask: Tensor | None) -> Tensor | None:
        share = self.config.training.token_dropout
        return drop_tokens(attention_mask, share) if share and attention_mask is not None else attention_mask

    def _readings(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Plain numbers for the log."""
        losses = {name: float(value.detach()) for name, value in metrics["losses"].items()}
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        norm = metrics["grad_norm"]
        return {
            "loss": float(metrics["loss"].detach()),
            "losses": losses,
            **self.balancer.report,
            "lr": rates,
            "grad_norm": None if norm is None else float(norm),
        }

    def _validate(self, epoch: int, log: MetricsLog) -> None:
        if not self.fabric.is_global_zero:
            return
        scored = score_student(self.fabric, self.kept, self.val)
        log.write({"step": self.progress.step, "epoch": epoch, "val": scored.as_dict()})
        if scored.rsum > self.progress.best_rsum:
            self.progress.best_rsum, self.progress.best_epoch = scored.rsum, epoch
            self.progress.best_score = scored.as_dict()
            save_tensors(dict(self.kept.state_dict()), {"epoch": epoch, "rsum": scored.rsum}, self.folder.best)

    def _state_modules(self) -> dict[str, torch.nn.Module]:
        modules = {"student": self.encoder, "objective": self.objective}
        return modules if self.average is None else {**modules, "average": self.average}

    def _save_last(self) -> None:
        packed = gather_random(self.fabric, pack_state(self._state_modules(), self.optimizer))
        packed |= {f"{_SOURCE}{name}": tensor for name, tensor in self.source.state().items()}
        if not self.fabric.is_global_zero:
            return
        metadata = {
            "progress": asdict(self.progress),
            "balancer": self.balancer.state_dict(),
            "processes": self.fabric.world_size,
            "fingerprints": self.fingerprints,
        }
        save_tensors(packed, metadata, self.folder.last)

    def _resume(self) -> None:
        if self.folder.last.is_file():
            packed, metadata = load_tensors(self.folder.last)
            require_same_number(metadata.get("processes", 1), self.fabric)
            require_same_data(metadata.get("fingerprints", {}), self.fingerprints)
            unpack_state(own_random(self.fabric, packed), self._state_modules(), self.optimizer)
            self.source.restore(under(packed, _SOURCE))
            self.balancer.load_state_dict(metadata["balancer"])
            self.progress = Progress(**metadata["progress"])

    def _add_time(self, started: float) -> float:
        now = time.monotonic()
        self.progress.seconds += now - started
        return now


class _Meter:
    """Pairs a second since the last reading."""

    def __init__(self) -> None:
        self._pairs, self._since = 0, time.monotonic()

    def count(self, pairs: int) -> None:
        self._pairs += pairs

    def read(self) -> float:
        now = time.monotonic()
        rate = self._pairs / max(now - self._since, 1e-9)
        self._pairs, self._since = 0, now
        return round(rate, 2)
