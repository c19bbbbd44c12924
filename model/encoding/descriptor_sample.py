"""A random sample of descriptors that does not depend on the order of the videos, on their blocks, or on how many processes read them.

Every video contributes its share, drawn by a generator of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowkit.model.encoding.trajectory_settings import SAMPLE_SIZE

_ROOM = 2  # how many times its share a video may keep before the surplus is dropped


def share_of(num_videos: int, total: int = SAMPLE_SIZE) -> int:
    """Return how many descriptors each of so many videos contributes at most, so that together they have at least `total`."""
    return -(-total // max(num_videos, 1))


class VideoSample:
    """A random sample of the descriptors of one video, collected block by block.

    All types of a descriptor are kept together: they describe the same trajectory.

    Parameters
    ----------
    video_id : str
        The video.
    most : int
        The number of descriptors to keep.
    seed : int
        The seed of the draws, which differ between videos.

    Notes
    -----
    Each descriptor draws a number, and those with the smallest numbers are kept. So every subset of `most` descriptors is as probable as
    any other, and memory is bounded.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.encoding.descriptor_sample import VideoSample
    >>> sample = VideoSample("run/v1", 3, seed=0)
    >>> for first in (0, 5):
    ...     sample.add({"hog": np.arange(first, first + 5, dtype=np.float32)[:, None]})
    >>> sample.rows()["hog"].shape
    (3, 1)
    """

    def __init__(self, video_id: str, most: int, *, seed: int) -> None:
        digest = hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).digest()
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((int.from_bytes(digest[:8], "little"), seed))))
        self._most = most
        self._numbers = np.zeros(0)
        self._blocks: list[dict[str, NDArray[np.float32]]] = []
        self.num_seen = 0

    def add(self, block: Mapping[str, NDArray[np.float32]]) -> None:
        """Offer descriptors: for each type an array (n, D), with the same n."""
        length = len(next(iter(block.values())))
        self.num_seen += length
        self._numbers = np.concatenate([self._numbers, self._generator.random(length)])
        self._blocks.append(dict(block))
        if len(self._numbers) > _ROOM * self._most:
            self._drop_surplus()

    def rows(self) -> dict[str, NDArray[np.float32]]:
        """Return the sample, for each type an array (n, D) with the same n, in the order of the video."""
        self._drop_surplus()
        return {} if not self._blocks else dict(self._blocks[0])

    def _drop_surplus(self) -> None:
        if not self._blocks:
            return
        kept = np.sort(np.argsort(self._numbers, kind="stable")[: self._most])
        self._numbers = self._numbers[kept]
        names = self._blocks[0]
        self._blocks = [{name: np.concatenate([block[name] for block in self._blocks])[kept] for name in names}]


def gathered(samples: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float32]]:
    """Return the samples of videos, by id, as one, in the order of their ids. Videos without descriptors contribute none."""
    parts = [samples[video_id] for video_id in sorted(samples) if samples[video_id]]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
