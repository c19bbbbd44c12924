"""What a command has made in a folder, recorded there, so that it can replace its own files and no others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowkit.errors import ParameterError
from flowkit.files import PART_SUFFIX, file_sha256, write_atomically
from flowkit.records import RecordFormat
from flowkit.versions import __version__


class MadeFiles:
    """The files that a command has made in a folder, in a record that lies there too.

    Parameters
    ----------
    folder : Path
        The folder.
    name : str
        The name of the record in the folder.
    kind : str
        The format of the record, such as ``flowkit-demo``.

    Notes
    -----
    While a step of the command runs, the record names the files and folders which that step makes. They count as the
    command's own until the next step, because a killed step cannot say what it has made.
    """

    def __init__(self, folder: Path, name: str, kind: str) -> None:
        self._folder, self._path = folder, folder / name
        self._format = RecordFormat(kind, 2, ParameterError, "delete the folder yourself, or choose another one")
        self._files: dict[str, str] = {}
        self._making: tuple[str, ...] = ()

    def exists(self) -> bool:
        """Return whether the folder has a record."""
        return self._path.is_file() and not self._path.is_symlink()

    def read(self) -> None:
        """Read the record.

        Raises
        ------
        ParameterError
            If it is damaged, or of an earlier flowkit, which did not record what it made.
        """
        record = self._format.read(self._path)
        files, making = record.get("files"), record.get("making")
        if (
            not isinstance(files, dict)
            or not isinstance(making, list)
            or not all(isinstance(text, str) for text in (*files.values(), *making))
        ):
            raise ParameterError(f"{self._path} is not valid; {self._format.remedy}")
        self._files, self._making = files, tuple(making)

    def write(self) -> None:
        """Write the record."""
        record = {**self._format.header, "created_by": f"flowkit {__version__}", "making": list(self._making), "files": self._files}
        write_atomically(self._path, json.dumps(record, indent=1) + "\n")

    @contextmanager
    def making(self, *names: str) -> Iterator[None]:
        """Record what the block makes: files, and folders with all that is in them, named relative to the folder."""
        self._making = names
        self.write()
        yield
        for path in self._all(names):
            if path.is_file() and not path.is_symlink():
                self._files[path.relative_to(self._folder).as_posix()] = file_sha256(path)
        self._making = ()
        self.write()

    def foreign(self, names: Sequence[str]) -> list[Path]:
        """Return what is in these files and folders and was not made by the command, or was changed since; empty folders do not count."""
        return [path for path in self._all(names) if path.is_symlink() or (not path.is_dir() and not self._is_own(path))]

    def remove(self, names: Sequence[str]) -> None:
        """Delete the command's own files among these, and the folders that they leave empty."""
        for path in reversed(list(self._all(names))):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif not path.is_symlink() and self._is_own(path):
                path.unlink()
        self._files, self._making = {}, ()

    def _is_own(self, path: Path) -> bool:
        name = path.relative_to(self._folder).as_posix()
        if any(_belongs(name, made) for made in self._making):
            return True
        return name in self._files and path.is_file() and file_sha256(path) == self._files[name]

    def _all(self, names: Sequence[str]) -> Iterator[Path]:
        """Yield these files and folders, as far as they exist, their temporary files, and everything in the folders, outer ones first."""
        for name in names:
            top = self._folder / name
            if top.is_symlink() or top.exists():
                yield top
            yield from sorted(self._folder.glob(f"{name}.*{PART_SUFFIX}"))
            if top.is_dir() and not top.is_symlink():
                for folder, folders, files in os.walk(top):
                    yield from (Path(folder) / entry for entry in sorted([*folders, *files]))


def _belongs(name: str, made: str) -> bool:
    """Return whether a name is that of what is being made, of something in it, or of its temporary file."""
    return name == made or name.startswith(made + "/") or (name.startswith(made + ".") and name.endswith(PART_SUFFIX))
