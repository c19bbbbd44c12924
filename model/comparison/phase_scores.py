"""Every trained phase scores the test videos once, whatever the number of systems that have it; its scores are kept video by video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_shards
from flowkit.errors import FlowkitError, ManifestError
from flowkit.files import file_sha256
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import network_scores
from flowkit.model.evaluation.results import SplitEvaluation
from flowkit.model.evaluation.split_results import NetworkScores, split_results
from flowkit.model.runs.checkpoint import WEIGHTS_NAME, load_checkpoint
from flowkit.model.runs.events import EvaluateEvent
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.runs.training_data import tested_extraction
from flowkit.model.scoring.tested_networks import Crops, TestedNetworks, sees_one_sample
from flowkit.model.settings.svm_phase import SvmDescription
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.system import System
from flowkit.model.training.svm_phase import SvmPhase, find_phases

Found = TypeVar("Found")
_PHASES = "phases"  # the folder of their scores; a system may have the name of a phase
_KEPT = "scores"  # what the names of the files of scores begin with


class TestStoppedError(Exception):
    """The test was stopped on request; what was scored is kept."""


class PhaseScores:
    """The scores of the phases of a run on one split, each computed when it is first needed.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    split : flowkit.Split
        The split.
    run : str
        The run.
    runs : Path, optional
        The folder of the runs. Default: that of the data root.
    folder : Path
        Where the scores are kept, in a folder for each phase. Other weights, data or settings replace them.
    execution : Execution
        Where and how to compute.
    crops : {"whole", "ten"}
        What networks see of a frame that look at one frame, or one stack of flow, at a time.
    on_event : callable
        Receives the events of `flowkit.model.runs.events`.
    should_stop : callable
        Called after each few videos. When it returns True, `TestStoppedError` is raised.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        *,
        run: str,
        runs: Path | None,
        folder: Path,
        execution: Execution,
        crops: Crops,
        on_event: Callable[[EvaluateEvent], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._dataset, self._split, self._run, self._runs = dataset, split, run, runs
        self._folder, self._execution, self._on_event, self._should_stop = folder, execution, on_event, should_stop
        self._crops, self._configs = crops, dict[Phase, TrainConfig]()
        self._digests: dict[Phase, str] = {}
        self._scores: dict[str, NetworkScores | FlowkitError] = {}
        self._svms: dict[Phase, tuple[SvmPhase, ...] | FlowkitError] = {}

    def weights(self, phase: Phase) -> str:
        """Return the SHA-256 of the file of a phase's weights; it is read once."""
        if phase not in self._digests:
            self._digests[phase] = file_sha256(self._folder_of(phase) / WEIGHTS_NAME)
        return self._digests[phase]

    def crops_of(self, system: System) -> Crops:
        """Return what the networks of a system see of a frame: ten crops if they are wanted and all of these networks can see them."""
        if self._crops == "whole" or not system.networks:
            return "whole"
        return "ten" if all(sees_one_sample(self._config(phase)) for phase in system.networks) else "whole"

    def results(self, system: System) -> SplitEvaluation:
        """Return the results of a system all of whose phases are trained.

        Raises
        ------
        FlowkitError
            If one of its phases cannot be tested: the same for each system that has it.
        TestStoppedError
            If the test was stopped.
        """
        crops = self.crops_of(system)
        networks = [self._of(phase, crops) for phase in system.networks]
        svms = [found for svm in system.svms for found in self._svm(svm)]
        return split_results(self._dataset, self._split, NetworkScores.joined(networks) if networks else None, svms)

    def _config(self, phase: Phase) -> TrainConfig:
        """Return how a phase was trained."""
        if phase not in self._configs:
            self._configs[phase] = load_checkpoint(self._folder_of(phase)).provenance.config
        return self._configs[phase]

    def _folder_of(self, phase: Phase) -> Path:
        return phase_folder(self._dataset.root, self._run, self._split.number, phase, runs=self._runs)

    def _of(self, phase: Phase, crops: Crops) -> NetworkScores:
        """Return the scores of a phase."""
        name = phase if crops == "whole" else f"{phase}-{crops}-crops"
        return _once(self._scores, name, lambda: self._test(phase, crops, self._folder / _PHASES / name))

    def _test(self, phase: Phase, crops: Crops, kept: Path) -> NetworkScores:
        """Score the test videos that no earlier call has scored by the network of a phase."""
        if not self._split.test:
            raise ManifestError(f"{self._dataset.root}: split {self._split.number} has no test video")
        check_shards(self._dataset, self._split, records=self._split.test)
        folder = self._folder_of(phase)
        checkpoint = load_checkpoint(folder)
        networks = TestedNetworks(
            self._split,
            {phase: (str(folder), checkpoint)},
            force=False,
            execution=self._execution,
            extraction=tested_extraction(self._dataset, self._split),
            crops=crops,
        )

        def on_event(event: EvaluateEvent) -> None:
            self._on_event(event)
            if self._should_stop():
                raise TestStoppedError

        digests = {phase: checkpoint.digest()}
        return network_scores(self._dataset, self._split, networks, digests, on_event, kept, of_name=_KEPT)

    def _svm(self, svm: SvmDescription) -> tuple[SvmPhase, ...]:
        """Return a trained SVM with its features."""
        return _once(self._svms, svm.name, lambda: find_phases(self._dataset, self._split, run=self._run, runs=self._runs, phases=[svm]))


def _once(known: dict[Phase, Found | FlowkitError], phase: Phase, find: Callable[[], Found]) -> Found:
    """Return what is known of a phase, or find it; an error is kept and raised again too."""
    if phase not in known:
        try:
            known[phase] = find()
        except FlowkitError as error:
            known[phase] = error
    found = known[phase]
    if isinstance(found, FlowkitError):
        raise found
    return found
