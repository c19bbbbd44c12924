"""Links from a report to the videos of a gallery, wherever both lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flowkit.describe.gallery_files import PAGE_NAME, GalleryFolder
from flowkit.describe.gallery_page import link_to_video
from flowkit.errors import FlowkitError


@dataclass(frozen=True)
class GalleryLinks:
    """The gallery that a report refers to.

    Parameters
    ----------
    address : str
        The address of its folder, relative to the report's folder, with a slash at the end; empty if there is no gallery.
    video_ids : frozenset of str
        The videos that it shows.
    """

    address: str = ""
    video_ids: frozenset[str] = frozenset()

    @property
    def page(self) -> str:
        """The address of the gallery's page; empty if there is no gallery."""
        return self.address and self.address + PAGE_NAME

    def of(self, video_id: str) -> str:
        """Return the address of a video; empty if the gallery does not show it."""
        return self.address + link_to_video(video_id) if video_id in self.video_ids else ""


def find_gallery(folder: Path, root: Path) -> GalleryLinks:
    """Find the gallery that `flowkit inspect --gallery` has made.

    Parameters
    ----------
    folder : Path
        The report's folder.
    root : Path
        The data root. A gallery is looked for in its ``reports/gallery`` and, if reports lie elsewhere, in the folder ``gallery``
        beside those of the runs.

    Returns
    -------
    GalleryLinks
        Empty if there is no gallery, or none that can be read.
    """
    for place in (root / "reports" / "gallery", folder.absolute().parent.parent / "gallery"):
        if not (place / PAGE_NAME).is_file():
            continue
        try:
            gallery = GalleryFolder(place)
            shown = frozenset(gallery.facts[name].video_id for name in gallery.shown)
            # A browser removes a name before ".." without following links, and so does relpath.
            address = quote(Path(os.path.relpath(place.absolute(), folder.absolute())).as_posix()) + "/"
        except (FlowkitError, OSError, ValueError):  # damaged, foreign, or on another drive: the report does without
            continue
        return GalleryLinks(address, shown)
    return GalleryLinks()
