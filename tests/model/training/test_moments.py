"""Running moments: the mean over a step's groups, once a step, of standard deviations or variances, and renewed after a short schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from phases import PHASES
from torch import Tensor, nn
from training_runs import metrics, run, same, weights

from flowkit.model.compute.execution import Execution
from flowkit.model.networks.resnet import GroupedBatchNorm, set_groups
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.network import BATCH_NORM_EPS
from flowkit.model.systems.configs import make_configs
from flowkit.model.training.moments import RunningMoments, share_of_step

KINDS = ("std", "variance")


def config_of(**overrides: Any) -> Any:
    return make_configs("small", num_classes=3, num_videos=12, short_side=40, overrides=overrides)["motion"]


def two_layers() -> nn.Sequential:
    """Layers with different numbers of channels and of values per group."""
    torch.manual_seed(1)
    return nn.Sequential(GroupedBatchNorm(3), nn.Conv2d(3, 5, 2), GroupedBatchNorm(5)).double().train()


def moments_by_hand(groups: list[Tensor], kind: str) -> tuple[Tensor, Tensor]:
    """Return the mean of the groups' means and the variance that evaluation should use, written out for one layer."""
    means = torch.stack([group.mean((0, 2, 3)) for group in groups])
    if kind == "variance":
        return means.mean(0), torch.stack([group.var((0, 2, 3), correction=1) for group in groups]).mean(0)
    deviations = torch.stack([(group.var((0, 2, 3), correction=0) + BATCH_NORM_EPS).sqrt() for group in groups])
    return means.mean(0), deviations.mean(0) ** 2 - BATCH_NORM_EPS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passes", [(6,), (1, 1, 1, 1, 1, 1), (4, 2), (3, 3)])
def test_a_step_counts_once_with_the_plain_mean_over_its_groups_however_they_share_passes(kind: Any, passes: tuple[int, ...]) -> None:
    network = two_layers()
    moments = RunningMoments(network, kind=kind)
    steps = torch.randn(2, 6, 4, 3, 5, 5, dtype=torch.float64) * torch.arange(1.0, 7)[:, None, None, None, None] + 2
    for share, groups in zip((1.0, 0.25), steps, strict=True):
        rest = groups
        for count in passes:
            set_groups(network, range(count))
            network(rest[:count].flatten(0, 1))
            moments.add_pass()
            rest = rest[count:]
            assert moments.sums.shape == (2, 8)
        moments.update(num_groups=6, share=share)
    (first_mean, first_variance), (mean, variance) = (moments_by_hand(list(groups), kind) for groups in steps)
    if kind == "std":
        spread = 0.75 * (first_variance + BATCH_NORM_EPS).sqrt() + 0.25 * (variance + BATCH_NORM_EPS).sqrt()
        expected = spread**2 - BATCH_NORM_EPS
    else:
        expected = 0.75 * first_variance + 0.25 * variance
    torch.testing.assert_close(network[0].running_mean, 0.75 * first_mean + 0.25 * mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network[0].running_var, expected, rtol=1e-12, atol=1e-12)
    assert int(network[2].num_batches_tracked) == 12


def test_evaluation_divides_by_the_mean_of_the_groups_standard_deviations() -> None:
    network = two_layers()[:1]
    moments = RunningMoments(network, kind="std")
    set_groups(network, range(2))
    narrow, wide = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    wide *= 100
    network(torch.cat([narrow, wide]))
    moments.add_pass()
    moments.update(num_groups=2, share=1.0)
    mean = (narrow.mean((0, 2, 3)) + wide.mean((0, 2, 3))) / 2
    deviation = sum((group.var((0, 2, 3), correction=0) + BATCH_NORM_EPS).sqrt() for group in (narrow, wide)) / 2
    expected = (wide - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(network.eval()(wide), expected, rtol=1e-12, atol=1e-12)


def test_a_channel_without_variance_keeps_a_running_variance_of_zero_and_no_less() -> None:
    network = two_layers()[:1].float()
    moments = RunningMoments(network, kind="std")
    for _ in range(20):
        set_groups(network, range(2))
        network(torch.full((4, 3, 5, 5), 0.3))
        moments.add_pass()
        moments.update(num_groups=2, share=0.9)
    assert (network[0].running_var >= 0).all()
    assert network[0].running_var.max() < 1e-8


def test_averaging_first_makes_the_running_moments_a_plain_mean_until_the_share_of_a_step_is_reached() -> None:
    config = config_of(bn_momentum=0.1, bn_average_first=True)
    network = two_layers()[:1]
    network[0].running_mean.fill_(100)
    moments = RunningMoments(network, kind="std")
    for step in range(6):
        set_groups(network, range(1))
        network(torch.full((2, 3, 2, 2), float(step), dtype=torch.float64))
        moments.add_pass()
        moments.update(num_groups=1, share=share_of_step(config, step))
    torch.testing.assert_close(network[0].running_mean, torch.full((3,), 2.5, dtype=torch.float64))
    assert share_of_step(config, 50) == 0.1
    assert share_of_step(config_of(bn_momentum=0.05, bn_average_first=False), 0) == 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_the_same_moments_whether_groups_share_a_pass_or_not(root: Path, kind: str) -> None:
    settings = {
        "phases": ["motion"],
        "overrides": {"batch": 8, "bn_group": 2, "steps": 2, "input_size": 64, "lr": 0.0, "bn_moments": kind},
    }
    run(root, **settings, run="alone")
    run(root, **settings, execution=Execution(device="cpu", videos_per_pass=6))  # a pass of three groups and one of one
    alone, shared = weights(root, "motion", "alone"), weights(root, "motion")
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_short_phase_ends_with_moments_of_its_final_weights(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    """The training's own are in the checkpoint; those of the final weights are a plain mean over the next batches of training."""
    first, received = undisturbed
    told = [(event.phase, event.done, event.num_steps) for event in received if isinstance(event, events.MomentsRenewed)]
    assert told == [(phase, done, 4) for phase in PHASES for done in (1, 2, 3, 4)]
    for phase in PHASES:
        before = load_checkpoint(phase_folder(first, "default", 1, phase) / "checkpoint.pt").network
        after = weights(first, phase)
        for name, tensor in after.items():
            assert torch.equal(tensor, before[name]) != ("running" in name or "num_batches" in name), name
    # The same steps without learning: every moment of these steps is that of the starting weights.
    run(root, phases=["motion"], run="kept", overrides={"lr": 0.0, "bn_average_first": True, "bn_momentum": 0.1, "bn_renewal_steps": 0})
    run(root, phases=["motion"], run="renewed", overrides={"lr": 0.0, "bn_renewal_steps": 4})
    kept, renewed = weights(root, "motion", "kept"), weights(root, "motion", "renewed")
    assert not same(kept, renewed)  # from other clips
    spread = [kept[name] / renewed[name] for name in kept if name.endswith("running_var")]
    assert 0.5 < torch.cat(spread).median() < 2


def test_stopped_while_the_moments_are_renewed_a_phase_continues_there_with_the_same_weights(
    undisturbed: tuple[Path, list[Any]], root: Path
) -> None:
    stopped: list[Any] = []
    from training_runs import TINY

    from flowkit.model.training.chain import train

    report = train(
        root,
        phases=["appearance"],
        overrides=TINY,
        execution=Execution(device="cpu", checkpoint_steps=2),
        on_event=stopped.append,
        should_stop=lambda: any(isinstance(event, events.MomentsRenewed) for event in stopped),
    )
    assert report.stopped
    assert isinstance(stopped[-1], events.RunStopped)
    folder = phase_folder(root, "default", 1, "appearance")
    assert not (folder / "weights.safetensors").exists()
    report, received = run(root, phases=["appearance"])
    assert report.trained == ("appearance",)
    assert not [event for event in received if isinstance(event, events.StepDone)]
    assert same(weights(root, "appearance"), weights(undisturbed[0], "appearance"))
    assert metrics(root, "appearance") == metrics(undisturbed[0], "appearance")


def test_a_run_begun_with_variances_and_no_renewal_continues_so_unless_an_option_says_otherwise(root: Path) -> None:
    old = {"bn_moments": "variance", "bn_renewal_steps": 0}
    run(root, phases=["appearance"], overrides=old, stop_after=2)
    run(root, phases=["appearance"])
    run(root, phases=["appearance"], run="whole", overrides=old)
    assert same(weights(root, "appearance"), weights(root, "appearance", "whole"))
    from flowkit.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r'config\.bn_moments is "variance", now "std"'):
        run(root, phases=["appearance"], overrides={"bn_moments": "std"})
