"""What lies in a folder itself, and not behind a link: exports and imports write and delete nothing outside the folder they are given.

A class folder may have been replaced by a link to another disk, or a folder with such links may have been unpacked from somewhere.
What is read may lie behind links; what is written may not.
"""

from __future__ import annotations

import stat
from pathlib import Path

from flowkit.errors import ManifestError
from flowkit.video.ids import utf8_name


def is_own_file(path: Path) -> bool:
    """Return whether a regular file lies at a path, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def refuse_links(root: Path, folder: Path) -> None:
    """Refuse a folder below a root that lies behind a link or a file.

    Parameters
    ----------
    root : Path
        The folder that was given, which may itself be a link.
    folder : Path
        A folder below it, which need not exist.

    Raises
    ------
    ManifestError
        If a part of the path below the root exists and is not a folder in the one above it; names that part.
    """
    path = root
    for part in folder.relative_to(root).parts:
        path = path / part
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            what = "a link" if path.is_symlink() else "not a folder"
            raise ManifestError(f"{utf8_name(str(path))!r} is {what}, and nothing is written behind it; remove it, then try again")
