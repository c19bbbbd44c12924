"""The files of one phase.

First ``config.json`` and ``videos.json``, then ``metrics.jsonl`` and ``checkpoint.pt`` during training, ``weights.safetensors`` at its
end, and last ``digests.json`` with the SHA-256 of all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import BusyError, CheckpointError
from flowkit.files import remove_if_abandoned, remove_leftovers, write_atomically
from flowkit.locks import exclusive_lock
from flowkit.model.runs.checkpoint import CHECKPOINT_NAME, WEIGHTS_NAME, Checkpoint, load_checkpoint, save_checkpoint, save_weights
from flowkit.model.runs.metrics import VALIDATION_ACCURACY
from flowkit.model.runs.places import check_run_name, place_options
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.training_data import VIDEOS_NAME, refuse_other_phase, videos_text
from flowkit.model.settings.training import Phase
from flowkit.model.systems.registry import PHASES, SYSTEMS
from flowkit.records import parse_json
from flowkit.run_digests import DIGESTS_NAME, write_digests
from flowkit.versions import __version__

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
_OWN_NAMES = (CONFIG_NAME, VIDEOS_NAME, METRICS_NAME, CHECKPOINT_NAME, DIGESTS_NAME, WEIGHTS_NAME)  # all that training writes
_OLD_RESULTS = re.compile(r"(results|fusion|ablation|tested)\.json|(table|ablation)\.md|per_class\.csv|(scores|fusion)\.h5|.*\.(png|html)")


def phase_folder(root: Path, run: str, split: int, phase: str, *, runs: Path | None = None) -> Path:
    """Return the folder of a phase of a run: in the data root, or in the folder `runs`."""
    return (runs or root / "runs") / run / f"split{split}" / phase


def is_phase_folder(path: Path) -> bool:
    """Return whether a folder holds a phase that was trained or begun, so that only training may write there."""
    return (path / CONFIG_NAME).is_file() and any((path / name).is_file() for name in (WEIGHTS_NAME, CHECKPOINT_NAME))


class PhaseFolder:
    """The folder of one phase and its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def done(self) -> bool:
        """Whether the phase has its final weights."""
        return (self.path / WEIGHTS_NAME).is_file()

    @property
    def begun(self) -> bool:
        """Whether the phase has weights, final ones or a checkpoint."""
        return self.done or (self.path / CHECKPOINT_NAME).is_file()

    def claim(self, provenance: Provenance, split: Split, command: dict[str, Any]) -> None:
        """Write config.json, with what else `command` says, which is not compared, and videos.json; nothing in a phase that is done.

        If the folder has weights or a checkpoint of other settings or data, an `OtherSettingsError` names all differences.
        """
        if self.begun:
            refuse_other_phase(load_checkpoint(self.path).provenance, provenance, split, self.path)
        if self.done:
            if (self.path / VIDEOS_NAME).is_file() and not (self.path / DIGESTS_NAME).exists():
                write_digests(self.path)  # training was killed between the weights and their digests
            remove_leftovers(self.path, alone=False)  # or while it wrote those
            remove_if_abandoned(self._lock_path)  # or after them: a phase that is done is not locked again
            return
        (self.path / DIGESTS_NAME).unlink(missing_ok=True)  # of weights that someone deleted
        write_atomically(self.path / VIDEOS_NAME, videos_text(split))
        text = json.dumps({**provenance.to_dict(), "created_by": f"flowkit {__version__}", **command}, indent=1, ensure_ascii=False)
        path = self.path / CONFIG_NAME
        if not path.is_file() or path.read_text(encoding="utf-8") != text + "\n":
            write_atomically(path, text + "\n")

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to continue from, if there is one."""
        path = self.path / CHECKPOINT_NAME
        return load_checkpoint(path) if path.is_file() else None

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        save_checkpoint(self.path / CHECKPOINT_NAME, checkpoint)

    def write_weights(self, checkpoint: Checkpoint) -> None:
        """Write the final weights, and then the digests of all files: the phase is done."""
        save_weights(self.path / WEIGHTS_NAME, checkpoint)
        write_digests(self.path)

    def drop_later_metrics(self, num_steps: int, *, validated: int) -> None:
        """Drop what the checkpoint does not include from metrics.jsonl, and a truncated line.

        The checkpoint includes so many steps, and validations up to that after step number `validated`.
        """
        path = self.path / METRICS_NAME
        kept = []
        for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
            try:
                values = parse_json(line)
                end = validated if VALIDATION_ACCURACY in values else num_steps
                is_included = values["step"] < end
            except (ValueError, KeyError, TypeError):
                continue
            if line.endswith(b"\n") and is_included:
                kept.append(line)
        write_atomically(path, b"".join(kept))

    def metrics_path(self) -> Path:
        """Return the file that has one JSON object per step."""
        return self.path / METRICS_NAME

    def discard(self) -> None:
        """Delete what training wrote, and the folder if nothing else is in it; `BusyError` if another process trains the phase."""
        if not self.path.is_dir():
            return
        with self.alone():
            for path in (*(self.path / name for name in _OWN_NAMES), *self.path.glob("tensorboard/events.out.tfevents.*")):
                path.unlink(missing_ok=True)
            for folder in (self.path / "tensorboard", self.path):
                with suppress(OSError):  # it is missing, or holds files of the user
                    folder.rmdir()

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the phase while a block runs, and remove what killed processes left; `BusyError` if another process trains it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._lock_path, f"trains {str(self.path)!r}"):
            remove_leftovers(self.path, alone=True, old_names=re.compile("|".join(map(re.escape, _OWN_NAMES))))
            yield


@contextmanager
def writing_report(folder: Path, command: str) -> Iterator[None]:
    """Be the only process that writes the results of a command to a folder while the block runs.

    Parameters
    ----------
    folder : Path
        The folder. It is made if it is missing; if nothing is in it at the end, it is removed.
    command : str
        The command, such as ``evaluate``. Different commands write different files, and may run side by side.

    Raises
    ------
    BusyError
        If another process writes the results of this command there.

    Notes
    -----
    A folder that cannot be written is not locked, because no process writes there.
    """
    with ExitStack() as stack:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_empty, missing)
            stack.enter_context(exclusive_lock(folder / f".{command}.lock", f"writes the results of {command} to {str(folder)!r}"))
        except BusyError:
            raise
        except OSError:
            yield
            return
        remove_leftovers(folder, alone=True, old_names=_OLD_RESULTS)
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, inner ones first, as long as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def trained_phases(root: Path, *, run: str, split: int, runs: Path | None = None) -> list[Phase]:
    """Return the phases of a run whose final weights are there."""
    return [phase for phase in PHASES if PhaseFolder(phase_folder(root, run, split, phase, runs=runs)).done]


def untrained_phases(phases: Iterable[Phase], root: Path, *, run: str, split: int, runs: Path | None = None) -> list[Phase]:
    """Return those of some phases whose final weights a run does not have."""
    return [phase for phase in phases if not PhaseFolder(phase_folder(root, run, split, phase, runs=runs)).done]


def _other_run(folder: Path, run: str) -> str:
    """Return a question about the run that was probably meant; empty if no other run has a similar name."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and path.name != run] if folder.is_dir() else []
    close = get_close_matches(run, names, n=1)
    return f"did you mean --run {close[0]}? " if close else ""


def train_command(root: Path, *, run: str, split: int, runs: Path | None = None, options: str = "") -> str:
    """Return the command that trains the phases that a run lacks."""
    return f"flowkit train{options} --split {split}" + (f" --run {run}" if run != "default" else "") + place_options(root, runs=runs)


def find_weights(root: Path, *, run: str, split: int, phase: Phase | None = None, runs: Path | None = None) -> Path:
    """Return the final weights of a phase, by default of the last that is trained, of the first system that has any.

    If there are none, a `CheckpointError` names the phases that are trained.
    """
    check_run_name(run)
    done = trained_phases(root, run=run, split=split, runs=runs)
    if not done and runs is None and not (root / "runs").is_dir():
        Dataset.open(root)  # says so if this is no data root
    if not done or (phase is not None and phase not in done):
        there = f"trained are {', '.join(done)}" if done else "nothing is trained there"
        command = train_command(root, run=run, split=split, runs=runs)
        raise CheckpointError(
            f"run {run!r} of {runs or root} has no trained {phase or 'phase'} for split {split} ({there}); "
            f"{_other_run(runs or root / 'runs', run)}`{command}` trains it"
        )
    last = next(name for system in SYSTEMS.values() for name in reversed(system.networks) if name in done)
    return phase_folder(root, run, split, phase or last, runs=runs) / WEIGHTS_NAME
