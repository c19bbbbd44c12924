"""Late fusion of our scores with those of other systems: matched by name, normalised, then averaged or combined by a linear SVM.

The paper combines its network with improved dense trajectories (IDT); its code does not have that. L2-normalised scores with equal
weights, the default here, are what is remembered of its text.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError, ParameterError, ScoresError
from flowkit.files import write_atomically
from flowkit.model.encoding.linear_svm import SVM_C, train_svm
from flowkit.model.evaluation.published import compare_with_paper, published_for
from flowkit.model.evaluation.results import read_results
from flowkit.model.evaluation.row_results import RowResult, interval_dict, paired_tests
from flowkit.model.evaluation.scores import ScoreTable, write_scores
from flowkit.model.fusion.matching import first_names, match_classes, match_videos
from flowkit.model.scoring.metrics import check_fusion, combine_scores, l2_normalised, softmax
from flowkit.versions import __version__
from flowkit.video.ids import group_of
from flowkit.words import counted

Normalise = Literal["l2", "softmax", "none"]
Method = Literal["mean", "svm"]

NUM_FOLDS = 5
_NEARLY = 1e-3


@dataclass(frozen=True)
class FusionSettings:
    """How scores are combined.

    Parameters
    ----------
    method : {"mean", "svm"}
        The weighted mean; or a linear SVM on all scores of a video, trained on the other folds of the test videos.
    normalise : {"l2", "softmax", "none"}
        What is done first with each video's scores, system by system: they are divided by their Euclidean length, made
        probabilities, or left as they are.
    weights : tuple of float, optional
        Ours first, then the others in order; default: equal. With the SVM they scale its inputs.
    num_folds : int
        Number of folds of the SVM's cross-validation.
    seed : int
        Seed of the folds.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    method: Method = "mean"
    normalise: Normalise = "l2"
    weights: tuple[float, ...] | None = None
    num_folds: int = NUM_FOLDS
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("normalise", Normalise)):
            if getattr(self, name) not in get_args(kind):
                raise ParameterError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if self.num_folds < 2 or self.seed < 0:
            raise ParameterError(f"at least 2 folds and a seed of at least 0 are needed, got {self.num_folds} and {self.seed}")


@dataclass(frozen=True)
class NamedScores:
    """The scores of a system, ours or another, and its name in the table."""

    name: str
    table: ScoreTable


@dataclass(frozen=True)
class FusionResult:
    """The results of our row, the other systems and their fusion on the same videos.

    Parameters
    ----------
    settings : FusionSettings
        How they were combined.
    fused : ScoreTable
        The fused scores, with labels.
    rows : dict from str to RowResult
        Our row, each other system, and the fusion last.
    num_ours : int
        Number of videos that our scores have; `fused` may have fewer.
    notes : tuple of str
        What else is worth knowing: unused rows, classes that no SVM could learn.
    """

    settings: FusionSettings
    fused: ScoreTable
    rows: dict[str, RowResult]
    num_ours: int
    notes: tuple[str, ...] = ()


def fuse_systems(
    ours: NamedScores,
    others: Sequence[NamedScores],
    *,
    settings: FusionSettings | None = None,
    common: bool = False,
    on_fold: Callable[[int], None] | None = None,
) -> FusionResult:
    """Combine our scores with those of other systems.

    Parameters
    ----------
    ours : NamedScores
        Must have labels.
    others : sequence of NamedScores
        At least one. Their videos and classes may be in any order; see `match_videos` and `match_classes`.
    settings : FusionSettings, optional
        How to combine them.
    common : bool
        Score only the videos that all systems have, instead of raising an error where one lacks some.
    on_fold : callable, optional
        Receives the number of folds that are done, if the method is the SVM.

    Raises
    ------
    ScoresError
        If videos or classes do not match.
    ParameterError
        If the settings do not fit, or scikit-learn is needed and missing.
    """
    settings = settings or FusionSettings()
    labels = ours.table.labels
    if labels is None or not others:
        raise ParameterError("fusion needs our scores with labels, and the scores of at least one other system")
    weights = settings.weights or (1.0,) * (1 + len(others))
    check_fusion(1 + len(others), weights=weights)
    names = [ours.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise ParameterError(f"the systems must have different names, got {', '.join(names)}")
    matches = [match_videos(ours.table, other.table) for other in others]
    notes: list[str] = []
    dropped: set[int] = set()
    for other, rows in zip(others, matches, strict=True):
        lacking = [our_row for our_row, row in enumerate(rows) if row is None]
        unused = sorted(set(range(len(other.table.video_ids))).difference(row for row in rows if row is not None))
        which = f"{len(lacking)} of our {len(labels)} videos ({first_names(ours.table.video_ids[row] for row in lacking)})"
        if lacking and not common:
            raise ScoresError(
                f"{other.table.source} lacks {which}, and an accuracy over fewer videos is a different number; "
                "--common scores only the videos that all systems have"
            )
        dropped.update(lacking)
        notes += [f"{other.name} lacks {which}"] if lacking else []
        if unused:
            which = first_names(other.table.video_ids[row] for row in unused)
            notes.append(f"{counted(len(unused), 'row')} of {other.name} for other videos, not used ({which})")
    kept = [row for row in range(len(labels)) if row not in dropped]
    if not kept:
        raise ScoresError(f"no video is common to {ours.table.source} and {' and '.join(other.table.source for other in others)}")
    labels = labels[kept]
    parts = [ours.table.scores[kept]]
    for other, rows in zip(others, matches, strict=True):
        kept_rows = [row for our_row in kept if (row := rows[our_row]) is not None]
        parts.append(other.table.scores[np.ix_(kept_rows, match_classes(ours.table, other.table))])
    scaled = [_normalised(part, settings.normalise) for part in parts]
    for name, part in zip(names, parts, strict=True):
        notes += [f"{name} {remark}" for remark in _scale_remarks(part, settings.normalise)]
    ids = tuple(ours.table.video_ids[row] for row in kept)
    if settings.method == "mean":
        joined = combine_scores(scaled, weights=weights)
    else:
        inputs = np.concatenate([weight * part for weight, part in zip(weights, scaled, strict=True)], axis=1)
        folds = folds_of(ids, labels, num_folds=settings.num_folds, seed=settings.seed)
        joined, more = svm_scores(inputs, labels, folds, num_classes=len(ours.table.classes), on_fold=on_fold)
        notes += more
    systems = zip([*names, " + ".join(names)], [*parts, joined], strict=True)
    rows_of = {name: RowResult.of(part, labels, video_ids=ids) for name, part in systems}
    fused = ScoreTable(" + ".join(names), ids, ours.table.classes, joined, labels)
    return FusionResult(replace(settings, weights=tuple(weights)), fused, rows_of, len(ours.table.video_ids), tuple(notes))


def _normalised(scores: NDArray[np.float64], how: Normalise) -> NDArray[np.float64]:
    return {"l2": l2_normalised, "softmax": softmax}[how](scores) if how != "none" else scores


def _scale_remarks(scores: NDArray[np.float64], normalise: Normalise) -> list[str]:
    """Return what is odd about normalising scores (n, C) so."""
    if normalise == "l2" and (scores <= 0).all():
        top = scores.max(axis=1, keepdims=True)
        if (np.abs(top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))) < _NEARLY).all():
            return ["has log-probabilities, of which l2 keeps mostly how unlikely the worst classes are; --normalise softmax fits them"]
    if normalise == "softmax" and (scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < _NEARLY).all():
        return ["has probabilities already, which softmax makes nearly equal; --normalise none fits them"]
    return []


def folds_of(video_ids: Sequence[str], labels: NDArray[np.int64], *, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Return each video's fold, in [0, num_folds): class by class, with a class's videos of one group (``_gNN_``) always together.

    The seed gives the order in which a class's groups are assigned to folds; each class continues where the class before it ended.
    """
    generator = np.random.default_rng(seed)
    members: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (video_id, label) in enumerate(zip(video_ids, labels.tolist(), strict=True)):
        group = group_of(video_id)
        members[label][video_id if group is None else f"g{group}"].append(index)
    folds, num_groups = np.zeros(len(video_ids), np.int64), 0
    for _, groups in sorted(members.items()):
        names = sorted(groups)
        for k in generator.permutation(len(names)):
            folds[groups[names[k]]] = num_groups % num_folds
            num_groups += 1
    return folds


def svm_scores(
    inputs: NDArray[np.float64],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    num_classes: int,
    on_fold: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float64], list[str]]:
    """Score every video by a linear SVM (one against the rest, C = 100) that was trained on the other folds.

    Parameters
    ----------
    inputs : float64 array, shape (n, D)
        What the SVM sees of each video.
    labels, folds : int64 array, shape (n,)
        Each video's class and fold.
    num_classes : int
        Number of classes, some of which may have no video.
    on_fold : callable, optional
        Receives the number of folds that are done.

    Returns
    -------
    scores : float64 array, shape (n, num_classes)
        Distances from the planes. A class that the other folds lack scores below all others.
    notes : list of str
        What went wrong without being an error.

    Raises
    ------
    ParameterError
        If scikit-learn is missing, or the other folds have fewer than two classes.
    """
    scores = np.zeros((len(labels), num_classes))
    classes = [str(label) for label in range(num_classes)]
    unseen = 0
    for done, fold in enumerate(np.unique(folds)):
        train, test = folds != fold, folds == fold
        known = np.unique(labels[train])
        if len(known) < 2:
            raise ParameterError(f"an SVM needs two classes; the videos outside fold {fold + 1} have {len(known)}")
        svm = train_svm(inputs[train], labels[train], classes, normalise=False)
        scores[test] = svm.scores_of(classes, inputs[test])
        unseen += int((~np.isin(labels[test], known)).sum())
        if on_fold is not None:
            on_fold(done + 1)
    notes = [f"{counted(unseen, 'video')} of classes that the other folds lack, which cannot be correct"] if unseen else []
    return scores, notes


def fusion_dict(
    result: FusionResult,
    *,
    sources: Mapping[str, str],
    published: Mapping[str, float] | None = None,
    differences: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a fusion's results as built-in types, for JSON.

    Parameters
    ----------
    result : FusionResult
        The results.
    sources : dict from str to str
        The file of each system's scores.
    published : dict from str to float, optional
        The paper's accuracies by system, in percent, where they may be compared with these.
    differences : sequence of str
        What was done differently from the official code and the paper.
    """
    settings = result.settings
    svm = {"C": SVM_C, "cross_validated": True, "num_folds": settings.num_folds, "seed": settings.seed}
    return {
        "format": "flowkit-fusion",
        "format_version": 1,
        "created_by": f"flowkit {__version__}",
        "systems": dict(sources),
        "method": settings.method,
        "normalise": settings.normalise,
        "weights": list(settings.weights or ()),
        "svm": svm if settings.method == "svm" else None,
        "num_videos": len(result.fused.video_ids),
        "num_ours": result.num_ours,
        "notes": list(result.notes),
        "interval": interval_dict(result.rows),
        "rows": {name: row.accuracy_dict() for name, row in result.rows.items()},
        "comparisons": [pair.to_dict() for pair in paired_tests(result.rows)],
        "published_percent": dict(published) if published else None,
        "published_differences": list(differences) if published else None,
    }


def write_fusion(folder: Path, result: FusionResult, values: Mapping[str, Any]) -> list[Path]:
    """Write the fused scores (``fusion.h5``, which `read_scores` reads) and then ``fusion.json``; return their paths."""
    scores, record = folder / "fusion.h5", folder / "fusion.json"
    record.unlink(missing_ok=True)  # an old one: as long as it is there, the two belong together
    write_scores(scores, result.fused)
    write_atomically(record, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return [scores, record]


def published_with_idt(root: Path, split: int, result: FusionResult, *, report: Path) -> tuple[dict[str, float], tuple[str, ...]] | None:
    """Return the paper's accuracies with IDT in percent, and what was done differently; None if the two do not measure the same thing.

    They do if ST-ResNet* and one other system, whose name says that it is IDT, were joined by their mean on a complete official test
    list, and the test of the run in the folder `report` can be compared (`compare_with_paper`).
    """
    others = [name for name in list(result.rows)[:-1] if name != "ST-ResNet*"]
    if "ST-ResNet*" not in result.rows or len(others) != 1 or "idt" not in Path(others[0]).stem.casefold():
        return None
    if result.settings.method != "mean" or not (root / "dataset.json").is_file():  # the SVM is trained on labels of the test
        return None
    dataset = Dataset.open(root)
    if split not in dataset.splits:
        return None
    manifest = dataset.split(split)
    is_complete = len(result.fused.video_ids) == manifest.num_listed_test and result.fused.classes == manifest.classes
    if published_for(manifest) is None or not is_complete:
        return None
    try:
        evaluation = read_results(report)
    except ManifestError:  # how these scores were made is unknown
        return None
    compared = compare_with_paper(manifest, evaluation.splits[0], evaluation)
    if compared.published is None:
        return None
    differences = [*compared.differences, *compared.choices]
    weights = result.settings.weights or (1.0,)
    if len(set(weights)) > 1:
        differences.append(f"fusion: weights {' : '.join(f'{weight:g}' for weight in weights)} (paper, from memory: equal)")
    if result.settings.normalise != "l2":
        differences.append(f"fusion: normalised by {result.settings.normalise} (paper, from memory: l2)")
    top1 = compared.published.top1 | compared.published.top1_with_idt
    return {row: top1[row] for row in ("IDT", "ST-ResNet*", "ST-ResNet* + IDT")}, tuple(differences)
