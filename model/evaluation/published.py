"""The accuracies that the paper reports, and whether they may be shown beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.dataset.lists.data_sets import DATA_SETS
from flowkit.dataset.manifest import Split
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.evaluation.official import flow_differences, phase_differences, protocol_of
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.systems.registry import DEFAULT_SYSTEM, SYSTEMS, description_of


@dataclass(frozen=True)
class PublishedResults:
    """The accuracies that the paper reports for one data set.

    Parameters
    ----------
    data_set : str
        Its name.
    num_videos : tuple of (int, int)
        Numbers of training and test videos of the official splits 1, 2, 3.
    top1 : dict from row to float
        Accuracy in percent, mean over the three splits.
    top1_with_idt : dict from row to float
        The same for improved dense trajectories and other SVMs, and for their late fusion with networks.
    """

    data_set: str
    num_videos: tuple[tuple[int, int], ...]
    top1: dict[str, float]
    top1_with_idt: dict[str, float]


def _of_networks(protocol: str) -> dict[str, float]:
    """Return the accuracies that this paper publishes of rows of networks, in percent."""
    return {row.name: row.published[protocol] for row in SYSTEMS[DEFAULT_SYSTEM].rows if protocol in row.published}


def _with_idt(protocol: str) -> dict[str, float]:
    """Return the published accuracies of the rows that have SVMs, such as those of improved trajectories, in percent."""
    return {system.row: system.published[protocol] for system in SYSTEMS.values() if system.svms and protocol in system.published}


# Feichtenhofer, Pinz, Wildes, NIPS 2016, Tables 3 and 4; the numbers of videos are counted from the official lists.
PUBLISHED = {
    "ucf101": PublishedResults(
        "UCF101",
        DATA_SETS["ucf101"].num_videos,
        _of_networks("ucf101"),
        _with_idt("ucf101"),
    ),
    "hmdb51": PublishedResults(
        "HMDB51",
        DATA_SETS["hmdb51"].num_videos,
        _of_networks("hmdb51"),
        _with_idt("hmdb51"),
    ),
}


@dataclass(frozen=True)
class Comparison:
    """Whether results may be compared with the paper's.

    Parameters
    ----------
    published : PublishedResults or None
        The paper's results; None if the two do not measure the same thing.
    obstacles : tuple of str
        Why they do not.
    differences : tuple of str
        If they do: what was done differently from the official code.
    choices : tuple of str
        And what flowkit's recipe of the official code does in its own way, with what the code or the paper does.
    """

    published: PublishedResults | None
    obstacles: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


def published_for(split: Split) -> PublishedResults | None:
    """Return what the paper reports for a split's data set; None unless it is an official split of UCF101 or HMDB51."""
    published = PUBLISHED.get(split.protocol)
    if published is None or not is_official_list(split) or not 1 <= split.number <= len(published.num_videos):
        return None
    return published


def compare_with_paper(
    split: Split, result: SplitEvaluation, evaluation: Evaluation, *, tested: Mapping[str, Any] | None = None
) -> Comparison:
    """Return the paper's accuracies with what differs from the official code, or the reasons why they do not compare with the results.

    They compare only if networks that were trained on a complete official training list scored every video of its test list.

    Parameters
    ----------
    split : flowkit.Split
        The split.
    result, evaluation : SplitEvaluation, Evaluation
        Its results, and how they were made.
    tested : dict, optional
        How the tested frames and flow were made, as `Provenance` has it, where that may differ from those of the training.
    """
    published = published_for(split)
    if published is None:
        return Comparison(
            None,
            (
                "The paper's accuracies are those of the official splits of UCF101 and HMDB51. This is another split, with "
                f"{len(split.classes)} classes, so they are neither a goal nor an upper limit here and are not shown.",
            ),
        )
    num_train, num_test = published.num_videos[split.number - 1]
    obstacles = [
        f"{what} {have:,} of the {must_be:,} videos of {published.data_set}'s official list."
        for what, have, must_be in (
            ("The networks could be trained on", len(split.train), num_train),
            ("The accuracies are those of", len(result.video_ids), num_test),
        )
        if have != must_be
    ]
    obstacles += [f"The weights were trained on other data: {warning}" for warning in result.warnings]
    if not result.warnings and not all(made.is_converted or made.digests & split.digests for made in result.provenances.values()):
        obstacles.append("The split has had other videos since the test.")
    if obstacles:
        return Comparison(
            None, (f"The paper's accuracies for {published.data_set} are not shown, because the two cannot be compared:", *obstacles)
        )
    differences, choices = _compared(result, evaluation, len(split.train), tested)
    return Comparison(published, (), tuple(differences), tuple(choices))


def _compared(
    result: SplitEvaluation, evaluation: Evaluation, num_train: int, tested: Mapping[str, Any] | None
) -> tuple[list[str], list[str]]:
    """Return what was done differently from the official code, and flowkit's choices: by phase, then flow, then the test."""
    differences: list[str] = []
    choices: list[str] = []
    of_flow = [made for phase, made in result.provenances.items() if description_of(phase).reference.has_flow]
    sources: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [(made.extraction, made.quantiser) for made in of_flow]
    if tested is not None:
        sources += [(tested, made.quantiser) for made in of_flow]
    parts: list[tuple[str, list[str], list[str]]] = []
    for phase, made in result.provenances.items():
        parts.append((phase, *phase_differences(made, num_train=num_train)))
    parts += [("frames and flow", *flow_differences(extraction, quantiser)) for extraction, quantiser in sources]
    for phase, made in result.provenances.items():
        unseen = [] if made.is_converted else [name for name in made.started_from if name not in result.provenances]
        parts.append((phase, [f"started from {name}, which is not tested here, so its training is not compared" for name in unseen], []))
    for name, differing, chosen in parts:
        differences += [f"{name}: {', '.join(differing)}"] if differing else []
        choices += [f"{name}: {'; '.join(chosen)}"] if chosen else []
    for system in SYSTEMS.values():
        if system.row in result.rows and system.differences and not system.joined:
            differences.append(f"{system.row}: {'; '.join(system.differences)}")
    precisions = {f"{phase}: trained in": made.precision for phase, made in result.provenances.items() if not made.is_converted}
    precisions["test: computed in"] = str(evaluation.environment.get("amp", "a precision that is not recorded"))
    differences += [f"{what} {precision} (official code: float32)" for what, precision in precisions.items() if precision != "float32"]
    plans = [made.config.network.clip_plan for made in result.provenances.values()]
    usual = protocol_of(plans[0]) if plans else ()
    if evaluation.protocol[: len(usual)] != usual:
        differences.append(f"test: {'; '.join(evaluation.protocol)} (official code: {'; '.join(usual)})")
    if evaluation.weights == "auto":
        pairs = ", ".join(f"{row} {chosen.weights[0]:g} : {chosen.weights[1]:g}" for row, chosen in result.fusion_weights.items())
        how = f"{evaluation.fusion} with weights chosen on validation videos{', ' if pairs else ''}{pairs}"
        differences.append(f"test: streams joined by {how} (official code: the plain mean of their logits)")
    elif evaluation.fusion != "logits_mean" or evaluation.weights[0] != evaluation.weights[1]:
        how = f"{evaluation.fusion} with weights {evaluation.weights[0]:g} : {evaluation.weights[1]:g}"
        differences.append(f"test: streams joined by {how} (official code: the plain mean of their logits)")
    return list(dict.fromkeys(differences)), list(dict.fromkeys(choices))
