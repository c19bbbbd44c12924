"""Where runs and reports are kept: names and folders, whether files can be written there, and the options that say so."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path

from flowkit.errors import ParameterError

_DEFAULT_ROOT = Path("flowkit-data")


def check_run_name(run: str) -> None:
    """Raise `ParameterError` unless a run's name is a plain folder name."""
    if not run or run in (".", "..") or any(not (c.isalnum() or c in "-_.+") for c in run):
        raise ParameterError(f"a run's name may hold letters, digits and - _ . + only, got {run!r}")


def report_folder(root: Path, run: str, split: int, *, reports: Path | None = None) -> Path:
    """Return the folder of the results of a run: in the data root, or in the folder `reports`."""
    return (reports or root / "reports") / run / f"split{split}"


def check_writable(folder: Path, *, option: str) -> None:
    """Check, before any work, that files can be written to a folder, which need not exist yet. Nothing remains of the trial.

    Parameters
    ----------
    folder : Path
        The folder of a phase or of a report.
    option : str
        The option that names another folder, for the error message.

    Raises
    ------
    ParameterError
        If no file can be written there: a shared data root is often read-only.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flowkit.model.runs.places import check_writable
    >>> check_writable(Path(tempfile.gettempdir(), "runs", "default"), option="--runs DIR")
    """
    absolute = folder.absolute()
    existing = next(path for path in (absolute, *absolute.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as cause:
        raise ParameterError(f"{str(folder)!r} cannot be written ({cause.strerror or cause}): give another folder with {option}") from cause


def place_options(root: Path, *, runs: Path | None = None, reports: Path | None = None) -> str:
    """Return the options that name a data root and the folders of runs and reports, as they stand in a suggested command."""
    options = [] if root == _DEFAULT_ROOT else ["--data", str(root)]
    options += ["--runs", str(runs)] if runs is not None else []
    options += ["--reports", str(reports)] if reports is not None else []
    return "".join(f" {shlex.quote(option)}" for option in options)
