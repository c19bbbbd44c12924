"""Totals over clips: how many there are, how long they last and how much they take."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.shards.reader import Clip


@dataclass
class ClipTotals:
    """Counts that grow with each clip.

    Parameters
    ----------
    num_videos, num_frames : int
        Clips, and their frames.
    seconds : float
        Duration of the clips whose time stamps or frame rate are known.
    num_bytes : int
        What frames and flow take in the files.
    """

    num_videos: int = 0
    num_frames: int = 0
    seconds: float = 0.0
    num_bytes: int = 0

    def add(self, clip: Clip) -> None:
        """Count a clip."""
        self.num_videos += 1
        self.num_frames += clip.num_frames
        self.seconds += clip.seconds or 0.0
        self.num_bytes += clip.stored_bytes

    def merge(self, other: ClipTotals) -> None:
        """Add the counts of other clips."""
        self.num_videos += other.num_videos
        self.num_frames += other.num_frames
        self.seconds += other.seconds
        self.num_bytes += other.num_bytes
