"""The training loop of one phase: sub-batches, updates, metrics, checkpoints. It stops and resumes at any step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.compute.device_batches import DeviceBatches
from flowkit.model.compute.execution import Execution, compile_in_place, explain_out_of_memory
from flowkit.model.compute.ranks import any_rank, sum_in_place, summed, wait
from flowkit.model.data.device_crops import crop_clips
from flowkit.model.data.sampling import network_seed
from flowkit.model.data.training_clips import Batch, ClipDataset, UncroppedBatch, training_loader
from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.networks.phase_networks import build_network, stream_logits
from flowkit.model.networks.resnet import set_groups
from flowkit.model.runs.checkpoint import Checkpoint
from flowkit.model.runs.events import MomentsRenewed, PhaseDone, PhaseStarted, RunStopped, StepDone, TrainEvent, WeightsSelected, ignore
from flowkit.model.runs.metrics import OUTPUTS
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import PhaseFolder
from flowkit.model.settings.training import TrainConfig
from flowkit.model.training.feature_clips import FeatureBatch, FeatureClips
from flowkit.model.training.moments import RunningMoments, share_of_step
from flowkit.model.training.optimiser import GradientSums, class_weights, make_optimiser, set_learning_rate, stream_losses
from flowkit.model.training.passes import groups_per_pass
from flowkit.model.training.validation import Validator

TrainingBatch = Batch | UncroppedBatch | FeatureBatch


class NotFiniteLossError(ParameterError):
    """The loss of a phase is not a finite number.

    Parameters
    ----------
    config : TrainConfig
        The settings of the phase.
    loss : float
        The loss.
    step : int
        The step at which it was seen.
    begun : bool
        Whether the phase has a checkpoint, from which training would resume with the same settings.
    from_source : bool
        Whether it started from a trained network that ``--init-from`` named.
    """

    def __init__(self, config: TrainConfig, *, loss: float, step: int, begun: bool, from_source: bool = False) -> None:
        rate = config.schedule[0][1]
        super().__init__(f"the loss of {config.phase} is {loss} at step {step}; its learning rate, which begins at {rate:g}, is too high")
        self.config, self.begun, self.from_source = config, begun, from_source


class PhaseRun:
    """The training of one phase: its network, its optimiser, and how many steps are done.

    Parameters
    ----------
    folder : PhaseFolder
        Where the phase is kept.
    provenance : Provenance
        What will be stored with the weights.
    clips : ClipDataset or FeatureClips
        The training data.
    execution : Execution
        Where and how fast to compute.
    start : callable
        Sets the first weights of a network; called if there is no checkpoint to continue from.
    validator : Validator, optional
        The videos that are held out for validation.

    Notes
    -----
    Each random draw is a function of seed, phase, step and position in the batch. Weights, momentum and the number of steps are
    therefore all that resuming needs; and the best weights so far, if the phase ends with the best.
    """

    def __init__(
        self,
        folder: PhaseFolder,
        provenance: Provenance,
        clips: ClipDataset | FeatureClips,
        *,
        execution: Execution,
        start: Callable[[PhaseNetwork], None],
        validator: Validator | None = None,
    ) -> None:
        self.folder, self.provenance, self.clips, self.execution = folder, provenance, clips, execution
        self.config = provenance.config
        self.device = execution.torch_device()
        self.network = build_network(self.config, checkpoint_activations=execution.checkpoint_activations)
        checkpoint = folder.checkpoint()
        if checkpoint is None:
            start(self.network)
        else:
            self._load_network(checkpoint)
        execution.place(self.network, self.device)
        if execution.compile:
            compile_in_place(self.network)
        self.optimiser = make_optimiser(self.network, self.config, scaled_loss=execution.amp == "fp16")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=execution.amp == "fp16")
        self.moments = RunningMoments(self.network, kind=self.config.bn_moments)
        self.gradients = GradientSums(self.network)
        self.class_weights = (
            class_weights(clips.labels, self.config.network.num_classes).to(self.device) if self.config.balance == "weights" else None
        )
        self.groups_per_pass = groups_per_pass(self.config, self.network, execution, self.device)
        self.validator = validator
        self.step = 0
        self.changes: tuple[str, ...] = ()
        if checkpoint is not None:
            self._load_progress(checkpoint)

    def train(self, *, on_event: Callable[[TrainEvent], None], should_stop: Callable[[], bool]) -> bool:
        """Do the remaining steps.

        Returns
        -------
        bool
            True if the phase is done and its weights are written; False if it stopped on request, with a checkpoint.

        Raises
        ------
        NotFiniteLossError
            If the loss is not a finite number.
        DeviceError
            If the GPU has too little memory.
        """
        config, execution, started = self.config, self.execution, time.monotonic()
        on_event(PhaseStarted(config.phase, self.step, config.num_steps, self.changes))
        if execution.rank == 0:
            self.folder.drop_later_metrics(self.step, validated=0 if self.validator is None else self.validator.validated)
        wait(execution.world)
        batches = self._batches(self.step)
        self.network.train()
        saved_at = time.monotonic()
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            execution.arithmetic(self.device, fixed_shapes=True),
            explain_out_of_memory(
                f"{self.groups_per_pass * config.bn_group} videos go through the network together; choose fewer with `--videos-per-pass` "
                "or `--bn-group`, or less memory per video with `--checkpoint-activations` or `--amp bf16`"
            ),
            # Line by line, so that every step of a checkpoint has its line.
            self.folder.metrics_path().open("a", encoding="utf-8", buffering=1) if execution.rank == 0 else nullcontext() as metrics,
        ):
            while self.step < config.num_steps:
                if self._is_validation_due() and not self._validate(metrics, on_event=on_event, should_stop=should_stop):
                    return self._stopped(on_event)
                values = self._take_step(batches)
                if metrics is not None:
                    metrics.write(json.dumps(values) + "\n")
                on_event(
                    StepDone(
                        config.phase,
                        values["step"],
                        config.num_steps,
                        values["loss"],
                        values["lr"],
                        values["seconds"],
                        values["data_seconds"],
                        {name: value for name, value in values.items() if name.startswith(("loss_", "accuracy_"))},
                    )
                )
                stop = any_rank(should_stop(), self.device, execution.world)
                due = execution.checkpoint_steps is not None and self.step % execution.checkpoint_steps == 0
                due |= self.step == config.num_steps or self._is_validation_due()
                if stop or due or time.monotonic() - saved_at >= execution.checkpoint_seconds:
                    self._save()
                    saved_at = time.monotonic()
                if stop and self.step < config.num_steps:
                    return self._stopped(on_event)
            if not self._renew_moments(batches, on_event=on_event, should_stop=should_stop):
                return self._stopped(on_event)
            if self.validator is not None and not self.validator.measure(
                self._network_state(), self.step, metrics, on_event=on_event, should_stop=should_stop
            ):
                return self._stopped(on_event)
            written = self._select(on_event)
        if execution.rank == 0:
            self.folder.write_weights(Checkpoint(self.provenance, written, self._network_state()))
        wait(execution.world)
        on_event(PhaseDone(config.phase, self.folder.path, time.monotonic() - started))
        return True

    def _stopped(self, on_event: Callable[[TrainEvent], None]) -> bool:
        on_event(RunStopped(self.config.phase, self.step, self.config.num_steps))
        return False

    def _batches(self, first_step: int) -> DeviceBatches[TrainingBatch]:
        """Return the batches of this rank from a step on."""
        execution = self.execution
        if isinstance(self.clips, FeatureClips):
            return DeviceBatches(self.clips.batches(first_step=first_step, rank=execution.rank, world=execution.world), self.device)
        loader = training_loader(
            self.clips,
            first_step=first_step,
            rank=execution.rank,
            world=execution.world,
            num_workers=execution.workers(self.device),
            pin_memory=self.device.type == "cuda",
            cropped=not execution.crops_on_device(self.device),
        )
        return DeviceBatches(loader, self.device)

    def _is_validation_due(self) -> bool:
        return self.validator is not None and self.validator.is_due(self.step)

    def _validate(self, metrics: TextIO | None, *, on_event: Callable[[TrainEvent], None], should_stop: Callable[[], bool]) -> bool:
        """Measure the validation videos during training; return whether this was not stopped.

        If the phase will renew its running moments, those of training may be far from the weights. The weights are then measured with
        renewed moments, from the same clips as at the end, and training continues with its own.
        """
        assert self.validator is not None
        stored = self._network_state()  # not what a pass leaves for the next
        buffers = [buffer for name, buffer in self.network.named_buffers() if name in stored]
        before = [buffer.clone() for buffer in buffers]
        done = not self.config.bn_renewal_steps or self._renew_moments(
            self._batches(self.config.num_steps), on_event=ignore, should_stop=should_stop
        )
        done = done and self.validator.measure(self._network_state(), self.step, metrics, on_event=on_event, should_stop=should_stop)
        torch._foreach_copy_(buffers, before)
        return done

    def _select(self, on_event: Callable[[TrainEvent], None]) -> int:
        """Take the weights with which the phase ends; return after how many steps it had them."""
        best = None if self.validator is None else self.validator.best
        if best is None:
            return self.step
        self.network.load_state_dict(best.network)
        on_event(WeightsSelected(self.config.phase, best.step, self.config.num_steps, best.accuracy))
        return best.step

    def _take_step(self, batches: DeviceBatches[TrainingBatch]) -> dict[str, Any]:
        """Sum the gradients of the sub-batches, update the weights, and return the step's line of metrics."""
        config, world, began, waited = self.config, self.execution.world, time.monotonic(), batches.seconds_waited
        rate = config.learning_rate(self.step)
        set_learning_rate(self.optimiser, rate)
        totals: dict[str, Tensor] = {}
        for sub_batches in self._passes():
            for name, value in self._pass(batches, sub_batches).items():
                totals[name] = totals[name] + value if name in totals else value
        batches.look_ahead()  # before the host waits for the device below
        # The gradients are parts of a sum over the whole batch, so nothing is divided.
        sum_in_place([*self.gradients.sums, self.moments.sums], world)
        self.gradients.write()
        self.moments.update(num_groups=config.num_sub_batches, share=share_of_step(config, self.step))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        names = sorted(totals)
        numbers = summed(torch.stack([totals[name] for name in names]).double(), world).tolist()
        values = dict(zip(names, numbers, strict=True))
        weight = values.pop("weight", 1.0)  # the mean of the batch's, by which the losses that are shown are divided
        values = {name: value / weight if name.startswith("loss_") else value for name, value in values.items()}
        losses = [value for name, value in values.items() if name.startswith("loss_")]
        loss = sum(losses) / len(losses)
        if not loss < float("inf"):
            began_elsewhere = self.provenance.first_network is not None
            raise NotFiniteLossError(config, loss=loss, step=self.step, begun=self.folder.begun, from_source=began_elsewhere)
        seconds = {"seconds": round(time.monotonic() - began, 4), "data_seconds": round(batches.seconds_waited - waited, 4)}
        line = {"step": self.step, "loss": loss, OUTPUTS: config.num_outputs, "lr": rate, **values, **seconds}
        self.step += 1
        return line

    def _renew_moments(
        self, batches: DeviceBatches[TrainingBatch], *, on_event: Callable[[TrainEvent], None], should_stop: Callable[[], bool]
    ) -> bool:
        """Make the running moments the plain mean over further batches with the present weights, if the phase asks for it.

        The batches are those that would follow the last step. The checkpoint keeps the moments of training, so a process that is
        stopped here (the result is then False) or killed does only this again.
        """
        config, execution = self.config, self.execution
        # The network would be compiled a second time, for a pass without gradients.
        stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager") if execution.compile else nullcontext()
        with torch.no_grad(), stance:
            for done in range(config.bn_renewal_steps):
                for sub_batches in self._passes():
                    self._logits(batches, sub_batches, step=config.num_steps + done)
                sum_in_place([self.moments.sums], execution.world)
                self.moments.update(num_groups=config.num_sub_batches, share=1 / (done + 1))
                on_event(MomentsRenewed(config.phase, done + 1, config.bn_renewal_steps))
                if any_rank(should_stop(), self.device, execution.world) and done + 1 < config.bn_renewal_steps:
                    return False
        return True

    def _passes(self) -> list[range]:
        """Return the sub-batches of this rank in a step, by pass through the network."""
        mine = range(self.execution.rank, self.config.num_sub_batches, self.execution.world)
        return [mine[start : start + self.groups_per_pass] for start in range(0, len(mine), self.groups_per_pass)]

    def _pass(self, batches: DeviceBatches[TrainingBatch], sub_batches: range) -> dict[str, Tensor]:
        """Add the gradients of the next sub-batches, and return their part of losses and training accuracies."""
        config = self.config
        logits, labels = self._logits(batches, sub_batches, step=self.step)
        steps = self.network.step_weights(next(iter(logits.values())).shape[1])
        steps = None if steps is None else steps.to(self.device)
        losses = stream_losses(logits, labels, num_videos=config.batch, weights=self.class_weights, steps=steps)
        total: Tensor = self.scaler.scale(torch.stack(list(losses.values())).sum())
        with self.execution.sound_gradients(self.network):
            total.backward()  # type: ignore[no-untyped-call]
        self.gradients.add()
        # What is measured is per frame and stream; the gradient above is that of the sum.
        values = {
            f"loss_{stream}": loss.detach() / (logits[stream].shape[1] if steps is None else steps.sum()) for stream, loss in losses.items()
        }
        for stream, scores in logits.items():
            values[f"accuracy_{stream}"] = (scores.detach().mean(1).argmax(1) == labels).sum() / config.batch
        if self.class_weights is not None:
            values["weight"] = self.class_weights[labels].sum() / config.batch
        return values

    def _logits(self, batches: DeviceBatches[TrainingBatch], sub_batches: range, *, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """Pass the next sub-batches through the network; return each stream's logits and the labels."""
        given = [next(batches) for _ in sub_batches]
        seeds = [network_seed(self.config.seed, self.config.phase, step, sub_batch) for sub_batch in sub_batches]
        set_groups(self.network, seeds)
        torch.manual_seed(seeds[0])  # dropout
        features = [batch.features for batch in given if isinstance(batch, FeatureBatch)]
        inputs = [self._inputs(batch) for batch in given if not isinstance(batch, FeatureBatch)]
        rgb, flow = _joined([frames for frames, _ in inputs]), _joined([fields for _, fields in inputs])
        with self.execution.autocast(self.device):
            logits = self.network.logits_of_features(torch.cat(features)) if features else stream_logits(self.network, rgb, flow)
        self.moments.add_pass()
        return logits, torch.cat([batch.labels for batch in given])

    def _inputs(self, batch: Batch | UncroppedBatch) -> tuple[Tensor | None, Tensor | None]:
        """Return a batch's RGB and flow, cropped and normalised."""
        if isinstance(batch, UncroppedBatch):
            assert isinstance(self.clips, ClipDataset)
            size, quantiser = self.config.network.input_size, self.clips.quantiser
            cropped = [crop_clips(part, size=size, quantiser=quantiser) for part in batch.parts]
            return _joined([rgb for rgb, _ in cropped]), _joined([flow for _, flow in cropped])
        return None if batch.rgb is None else normalise_rgb(batch.rgb), None if batch.flow is None else normalise_flow(batch.flow)

    def _save(self) -> None:
        if self.execution.rank == 0:
            momentum = {
                name: self.optimiser.state[parameter]["momentum_buffer"]
                for name, parameter in self.network.named_parameters()
                if self.optimiser.state[parameter].get("momentum_buffer") is not None
            }
            environment = self._environment()
            scaler = self.scaler.state_dict()
            validation = () if self.validator is None else (self.validator.validated, self.validator.best)
            made = Checkpoint(self.provenance, self.step, self._network_state(), momentum, environment, scaler, *validation)
            self.folder.write_checkpoint(made)

    def _environment(self) -> dict[str, str | int | bool]:
        """Return everything that may change the last digits."""
        return {**self.execution.environment(self.device), "videos_per_pass": self.groups_per_pass * self.config.bn_group}

    def _network_state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.network.state_dict().items()}

    def _load_network(self, checkpoint: Checkpoint) -> None:
        try:
            self.network.load_state_dict(checkpoint.network)
        except RuntimeError as cause:
            raise CheckpointError(f"the checkpoint in {self.folder.path} does not fit its network: {cause}") from cause

    def _load_progress(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        parameters = dict(self.network.named_parameters())
        fits = all(name in parameters and parameters[name].shape == buffer.shape for name, buffer in checkpoint.momentum.items())
        if self.validator is not None:
            fits &= self.validator.resume(checkpoint)
        if not fits or not 0 <= self.step <= self.config.num_steps:
            raise CheckpointError(f"the checkpoint in {self.folder.path} does not fit its network")
        for name, buffer in checkpoint.momentum.items():
            parameter = parameters[name]
            self.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
        if checkpoint.scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint.scaler)
        here = self._environment()
        self.changes = tuple(
            f"{name} was {checkpoint.environment.get(name)}, now {value}"
            for name, value in here.items()
            if checkpoint.environment.get(name) != value
        )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """Join the parts of a batch; None if the phase does not have this stream."""
    given = [part for part in parts if part is not None]
    return (torch.cat(given) if len(given) > 1 else given[0]) if given else None
