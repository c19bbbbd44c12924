"""The paper's test protocol: 25 complete frames per video and their mirror images, mean of logits, five rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_flow, check_shards
from flowkit.errors import ManifestError
from flowkit.model.compute.execution import Execution, machine
from flowkit.model.compute.ranks import gathered
from flowkit.model.data.whole_videos import WholeClipDataset
from flowkit.model.evaluation.fusion_weights import (
    EQUAL_WEIGHTS,
    GRID_TEXT,
    ChosenWeights,
    FusionWeights,
    check_joined,
    choose_weights,
    joined_rows,
    own_fusion_text,
    validation_records,
)
from flowkit.model.evaluation.official import protocol_of
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.evaluation.rows import ROWS
from flowkit.model.evaluation.split_results import NetworkScores, split_results
from flowkit.model.evaluation.unfinished import UNFINISHED, UnfinishedScores, remove_unfinished
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.runs.events import EvaluateEvent, SplitStarted, VideosScored, to_all
from flowkit.model.runs.places import check_run_name
from flowkit.model.runs.progress import RunProgress
from flowkit.model.runs.recorded import recorded_run
from flowkit.model.runs.run_folder import find_weights, phase_folder, trained_phases
from flowkit.model.runs.training_data import tested_extraction
from flowkit.model.scoring.metrics import Fusion
from flowkit.model.scoring.scored_videos import score_videos, stream_scores
from flowkit.model.scoring.tested_networks import Crops, TestedNetworks
from flowkit.model.settings.training import Phase
from flowkit.model.systems.registry import SYSTEMS, find_system
from flowkit.model.training.svm_phase import SvmPhase, check_trained, find_phases

_logger = logging.getLogger(__name__)
FUSION_TEXT: dict[Fusion, str] = {
    "logits_mean": "streams joined by the mean of their logits, weights {}",
    "softmax_mean": "streams joined by the mean of the softmax of their scores, weights {}",
}
CHOSEN_TEXT = f"of each row chosen on the validation videos from {GRID_TEXT} (appearance : motion), the nearest to equal among the best"


def evaluate(
    root: str | Path,
    *,
    splits: Sequence[int] = (1,),
    run: str = "default",
    runs: str | Path | None = None,
    checkpoint: str | Path | None = None,
    system: str | None = None,
    fusion: Fusion | None = None,
    weights: FusionWeights | None = None,
    crops: Crops = "whole",
    force: bool = False,
    execution: Execution | None = None,
    progress: bool | None = None,
    on_event: Callable[[EvaluateEvent], None] | None = None,
    on_split: Callable[[Evaluation], None] | None = None,
    keep_scores_in: Callable[[int], Path] | None = None,
    forget_scores: bool = True,
) -> Evaluation:
    """Test a run's networks on the test videos of packed splits.

    Parameters
    ----------
    root : path
        The data root.
    splits : sequence of int
        The numbers of the splits.
    run : str
        The run's name.
    runs : path, optional
        The folder of the runs. Default: ``runs`` in the data root.
    checkpoint : path, optional
        Test this network instead of the run's: a phase's folder, weights or checkpoint.
    system : str, optional
        The name of a system, such as ``st-resnet-star+idt``: the rows are those of its phases, which must all be trained. Default: the
        rows of all phases that are trained.
    fusion : {"logits_mean", "softmax_mean"}, optional
        How two streams are combined: by the mean of their logits, or of the softmax of their logits. Default: the mean of the logits;
        but if neither `fusion` nor `weights` are given, a row whose publication says otherwise, VGG-16's, is combined as there.
    weights : (float, float) or "auto", optional
        Weights of the appearance and the motion stream in that mean; by default equal. ``auto`` chooses those of each row on the videos
        that the run held out for validation; see `flowkit.model.evaluation.fusion_weights.choose_weights`.
    crops : {"whole", "ten"}
        What the networks see of each frame: all of it, or ten crops of the size of training crops (corners, centre and their mirror
        images), over whose logits the mean is taken, as in the tests of the two-stream papers. Ten crops are for networks that look at one
        frame or stack of flow at a time.
    force : bool
        Evaluate even if the weights were trained on other data.
    execution : Execution, optional
        Where and how to compute.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    on_event : callable, optional
        Receives the events of `flowkit.model.runs.events`.
    on_split : callable, optional
        Receives each split's results as soon as they are there, so that they can be kept whatever happens to later splits.
    keep_scores_in : callable, optional
        Returns a folder for the number of a split. The scores of each video are kept there until the split is finished, so that a
        call that is interrupted goes on where it stopped when it is made again. They are used only with the same weights, data,
        device, precision and versions. No other process may write there meanwhile. Default: nothing is kept.
    forget_scores : bool
        Whether they are removed when the split is finished; else the caller does it (`remove_unfinished`).

    Returns
    -------
    Evaluation
        Accuracies with their intervals, confusion matrices and every video's scores, by row of the results table.

    Raises
    ------
    CheckpointError
        If nothing is trained, a network was trained on other classes, data or quantisation (the last two: unless `force`), or weights
        are to be chosen and the run has no validation videos.
    ManifestError
        If a split is not packed or has no test video, or a shard that is needed is missing or truncated.
    ParameterError
        If there is no such system, streams cannot be joined in this way, or networks that look at several samples are to see ten crops.

    Notes
    -----
    A video's score is, for each stream, the mean of its logits over 25 frames, their mirror images, and the places in the frame.

    References
    ----------
    C. Feichtenhofer, A. Pinz, R. P. Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016,
    arXiv:1611.02155.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import evaluate, train
    >>> root = example_root()  # 7 test videos are listed, one of which is missing
    >>> tiny = {"base_width": 4, "input_size": 32, "batch": 2, "bn_group": 2, "steps": 1}
    >>> _ = train(root, phases=["appearance"], recipe="small", overrides=tiny)
    >>> evaluation = evaluate(root)
    >>> evaluation.splits[0]
    <split 1: appearance ... %; 6 of 7 videos scored>
    >>> evaluation.splits[0].rows["appearance"].confusion.shape
    (6, 6)
    """
    root, execution = Path(root), execution or Execution()
    kept = None if runs is None else Path(runs)
    check_run_name(run)
    check_joined(2, fusion=fusion, weights=None if weights == "auto" else weights)  # before the work
    dataset = Dataset.open(root)
    wanted = None if system is None else find_system(system)

    def networks_for(number: int) -> tuple[TestedNetworks, dict[Phase, str], tuple[SvmPhase, ...]]:
        """Return the networks that are tested on a split, the digests of their weights, and the trained SVMs."""
        split = dataset.split(number)
        if not split.test:
            raise ManifestError(f"{root}: split {number} has no test video")
        check_shards(dataset, split, records=split.test)
        if wanted is not None:
            check_trained(wanted, root, run=run, split=number, runs=kept)
        chosen = () if checkpoint is not None else None if wanted is None else wanted.svms
        svms = find_phases(dataset, split, run=run, runs=kept, phases=chosen)
        only = None if wanted is None else wanted.networks
        checkpoints = {} if only == () else _checkpoints(root, run, number, checkpoint, kept, only, optional=bool(svms))
        if checkpoints:
            check_flow(dataset, "a test of networks")
        made = tested_extraction(dataset, split)
        networks = TestedNetworks(split, checkpoints, force=force, execution=execution, extraction=made, crops=crops)
        if weights == "auto":
            validation = validation_records(split, networks.provenances)
            check_shards(dataset, split, records=validation)
        return networks, {phase: found.digest() for phase, (_, found) in checkpoints.items()}, svms

    for number in splits[1:]:
        networks_for(number)  # what would be refused later is refused before hours of work
    results: list[SplitEvaluation] = []

    with RunProgress(progress if execution.rank == 0 else False) as show:
        for number in splits:
            report = to_all(show, on_event)
            started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.monotonic()
            folder = None if keep_scores_in is None else keep_scores_in(number)
            result = _evaluate_split(dataset, dataset.split(number), *networks_for(number), fusion, weights, report, folder)
            results.append(replace(result, started=started, seconds=round(time.monotonic() - began, 3)))
            if on_split is not None:
                on_split(described(results[-1:], execution, fusion=fusion, weights=weights, crops=crops))
            if folder is not None and execution.rank == 0 and forget_scores:
                remove_unfinished(folder)
    return described(results, execution, fusion=fusion, weights=weights, crops=crops)


def described(
    splits: Sequence[SplitEvaluation],
    execution: Execution,
    *,
    fusion: Fusion | None = None,
    weights: FusionWeights | None = None,
    crops: Crops = "whole",
) -> Evaluation:
    """Return the results of some splits with how they were made: the protocol in words, and the machine."""
    kind: Fusion = fusion or "logits_mean"
    usual = weights or EQUAL_WEIGHTS
    how = FUSION_TEXT[kind].format(CHOSEN_TEXT if usual == "auto" else "{:g} : {:g} (appearance : motion)".format(*usual))
    own = own_fusion_text([row for split in splits for row in split.rows]) if fusion is None and weights is None else ""
    how += f"; {own}" if own else ""
    plans = dict.fromkeys(made.config.network.clip_plan for split in splits for made in split.provenances.values())
    texts = dict.fromkeys(text for plan in plans for text in protocol_of(plan, crops))
    environment = {**execution.environment(execution.torch_device()), **machine()}
    return Evaluation(tuple(splits), (*texts, how) if plans else (), kind, usual, environment)  # the protocol is that of networks


def _evaluate_split(
    dataset: Dataset,
    split: Split,
    networks: TestedNetworks,
    digests: Mapping[Phase, str],
    svms: Sequence[SvmPhase],
    fusion: Fusion | None,
    weights: FusionWeights | None,
    on_event: Callable[[EvaluateEvent], None],
    folder: Path | None,
) -> SplitEvaluation:
    """Score every test video once by all networks; each rank scores its share of those that no earlier call has scored."""
    chosen = _chosen_weights(dataset, split, networks, fusion or "logits_mean", on_event) if weights == "auto" else {}
    scored = network_scores(dataset, split, networks, digests, on_event, folder) if networks.phases else None
    return split_results(dataset, split, scored, svms, fusion=fusion, weights=weights, chosen=chosen)


def network_scores(
    dataset: Dataset,
    split: Split,
    networks: TestedNetworks,
    digests: Mapping[Phase, str],
    on_event: Callable[[EvaluateEvent], None],
    folder: Path | None,
    *,
    of_name: str = UNFINISHED,
) -> NetworkScores:
    """Return the scores of each test video by networks that look at it together, and the videos that have none.

    Parameters
    ----------
    dataset, split : flowkit.Dataset, flowkit.Split
        The data root, and the split whose test videos are scored.
    networks : TestedNetworks
        The networks.
    digests : dict from phase to str
        The digests of their weights.
    on_event : callable
        Receives the events of `flowkit.model.runs.events`. An error that it raises ends the test; the scores so far are kept.
    folder : Path, optional
        Where the scores are kept video by video, so that another call with the same weights, data and settings goes on there.
    of_name : str
        What the names of the files there begin with.
    """
    clips = WholeClipDataset(dataset, split.test, split.quantiser, input_size=networks.input_size, plan=networks.plan)
    execution = networks.execution
    settings = {"protocol": list(protocol_of(networks.plan, networks.crops)), **execution.scoring_environment(networks.device)}
    with UnfinishedScores(folder, split, digests, settings, parts=networks.parts, rank=execution.rank, of_name=of_name) as unfinished:
        known = {name: values for part in gathered(unfinished.read(), execution.world) for name, values in part.items()}

        def progress(done: int, num_videos: int, num_failed: int) -> None:
            on_event(
                VideosScored(split.number, done, num_videos, num_failed) if done else SplitStarted(split.number, num_videos, len(known))
            )

        return NetworkScores.of(networks, *score_videos(networks, clips, known=known, on_scored=unfinished.add, on_progress=progress))


def _chosen_weights(
    dataset: Dataset, split: Split, networks: TestedNetworks, fusion: Fusion, on_event: Callable[[EvaluateEvent], None]
) -> dict[str, ChosenWeights]:
    """Choose the weights of each row that joins two streams on the validation videos, which are scored as in the test."""
    records = validation_records(split, networks.provenances)
    clips = WholeClipDataset(dataset, records, split.quantiser, input_size=networks.input_size, plan=networks.plan)

    def progress(done: int, num_videos: int, num_failed: int) -> None:
        on_event(VideosScored(split.number, done, num_videos, num_failed, of_validation=True))

    scored, failed = score_videos(networks, clips, on_progress=progress)
    if failed:
        raise ManifestError(f"fusion weights cannot be chosen: a validation video has no scores, {failed[0].video_id}: {failed[0].reason}")
    labels = np.array([record.label for record in records], dtype=np.int64)
    ids = [record.video_id for record in records]
    scores = stream_scores(scored, ids, parts=networks.parts, num_classes=len(split.classes))
    rows = joined_rows(networks.phases)
    return {row: choose_weights([scores[part] for part in ROWS[row]], labels, fusion=fusion) for row in rows}


def _checkpoints(
    root: Path,
    run: str,
    split: int,
    given: str | Path | None,
    runs: Path | None,
    only: Sequence[str] | None,
    *,
    optional: bool,
) -> dict[Phase, tuple[str, Checkpoint]]:
    """Return the weights to test by phase, of these phases or of all, and where they come from; there may be none if that is `optional`."""
    if given is not None:
        checkpoint = load_checkpoint(Path(given))
        return {checkpoint.provenance.config.phase: (str(given), checkpoint)}
    trained = [phase for phase in trained_phases(root, run=run, split=split, runs=runs) if only is None or phase in only]
    trained = trained if only is not None else _that_see_the_same(trained, root, run, split, runs)
    if not trained and not optional:
        find_weights(root, run=run, split=split, runs=runs)  # says that the run has no trained phase
    folders = {phase: phase_folder(root, run, split, phase, runs=runs) for phase in trained}
    return {phase: (str(folder), load_checkpoint(folder)) for phase, folder in folders.items()}


def _that_see_the_same(trained: Sequence[Phase], root: Path, run: str, split: int, runs: Path | None) -> list[Phase]:
    """Return these phases without those of further systems whose networks see other sizes or clips than the first system's."""
    first = next((system for system in SYSTEMS.values() if set(system.networks) & set(trained)), None)
    if first is None:
        return list(trained)
    recorded = recorded_run(root, run, split, runs=runs)
    seen = {phase: (made.config.network.input_size, made.config.network.clip_plan) for phase, made in recorded.items()}
    own = {seen[phase] for phase in first.networks if phase in seen}
    left_out = [phase for phase in trained if phase not in first.networks and phase in seen and seen[phase] not in own]
    if left_out and own:
        _logger.warning(
            "left out, because their networks see another size, or other clips, than those of %s: %s; `--system NAME` tests them",
            first.name,
            ", ".join(left_out),
        )
    return [phase for phase in trained if not own or phase not in left_out]
