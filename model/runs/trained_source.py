"""Where the trained networks lie from which another training can start: in a run, in a folder of one, or in a file."""

from __future__ import annotations

from pathlib import Path

from flowkit.dataset.root import RECORD_NAME
from flowkit.errors import CheckpointError
from flowkit.model.runs.checkpoint import CHECKPOINT_NAME, WEIGHTS_NAME, load_checkpoint
from flowkit.model.runs.run_folder import PhaseFolder
from flowkit.model.settings.training import Phase
from flowkit.model.systems.registry import PHASES
from flowkit.video.ids import first_few

_NAMES_SHOWN = 5


def find_trained(source: str | Path, *, runs: Path, split: int) -> dict[Phase, Path]:
    """Return the weights that a source of trained networks has, by phase.

    Parameters
    ----------
    source : str or path
        The name of a run in `runs`; or the path of a run's folder (of any data root), of its folder for one split, of a phase's
        folder, or of a file of weights. Any folder that has folders named like phases is read like that of a split.
    runs : Path
        The folder of the runs.
    split : int
        The split that is taken from a run with several; a run that has only one gives that one.

    Raises
    ------
    CheckpointError
        If there is nothing of this name, or nothing in it is trained.
    """
    name = str(source)
    path = runs / name if _is_name(name) and (runs / name).is_dir() else Path(source)
    if path.is_dir():
        return _in_folder(path, split)
    if path.is_file():
        return {_phase_of(path): path}
    there = sorted(folder.name for folder in runs.iterdir() if folder.is_dir()) if runs.is_dir() else []
    has = f"has {first_few(there, most=_NAMES_SHOWN)}" if there else "has no run"
    raise CheckpointError(f"{name!r} is neither a file or folder nor a run in {runs}, which {has}")


def _in_folder(path: Path, split: int) -> dict[Phase, Path]:
    """Return the weights in the folder of a run, of a split or of a phase."""
    of_split = _trained_phases(path)
    if of_split:
        return of_split
    by_split = {folder: found for folder in sorted(path.glob("split*")) if (found := _trained_phases(folder))}
    if by_split:
        return by_split.get(path / f"split{split}") or _only(path, split, by_split)
    for name in (WEIGHTS_NAME, CHECKPOINT_NAME):
        if (path / name).is_file():
            return {_phase_of(path / name): path / name}
    if (path / RECORD_NAME).is_file():
        runs = sorted(str(folder) for folder in (path / "runs").glob("*") if folder.is_dir())
        advice = f"name one of its runs: {first_few(runs, most=_NAMES_SHOWN)}" if runs else "it has no run"
        raise CheckpointError(f"{path} is a data root; {advice}")
    folders = (path, *path.glob("split*"))
    begun = [phase for phase in PHASES if any(PhaseFolder(folder / phase).begun for folder in folders)]
    has = "has a checkpoint" if len(begun) == 1 else "have checkpoints"
    raise CheckpointError(
        f"no phase in {path} is trained to its end"
        + (f" ({' and '.join(begun)} {has}; the folder of such a phase can be given)" if begun else "")
    )


def _trained_phases(folder: Path) -> dict[Phase, Path]:
    return {phase: folder / phase / WEIGHTS_NAME for phase in PHASES if PhaseFolder(folder / phase).done}


def _only(path: Path, split: int, by_split: dict[Path, dict[Phase, Path]]) -> dict[Phase, Path]:
    if len(by_split) > 1:
        raise CheckpointError(f"{path} has no split {split}; name one of its folders: {first_few(map(str, by_split), most=_NAMES_SHOWN)}")
    (found,) = by_split.values()
    return found


def _phase_of(path: Path) -> Phase:
    return load_checkpoint(path).provenance.config.phase


def _is_name(text: str) -> bool:
    return Path(text).name == text
