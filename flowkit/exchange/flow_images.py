"""Images of flow, as every layout of an export needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.exchange.layouts import FlowImages
from flowkit.quantise import Quantiser
from flowkit.shards.jpeg import decode_jpeg, encode_jpeg
from flowkit.shards.reader import Clip

_AT_ONCE = 32  # flow fields in memory


@dataclass(frozen=True)
class Labelled:
    """A video to export: its id, label and subset (without a split: ``all``; without a class: -1)."""

    video_id: str
    label: int
    subset: str


class FlowEncoder:
    """Encodes the flow of clips as images, and measures the error of the images.

    Parameters
    ----------
    flow : {"jpeg", "png"}
        The kind of images.
    quantiser : Quantiser
        The quantiser of the images.
    """

    def __init__(self, flow: FlowImages, quantiser: Quantiser) -> None:
        self.flow, self.quantiser = flow, quantiser
        self._errors: list[tuple[float, float]] = []

    def pairs(self, clip: Clip) -> Iterator[tuple[bytes, bytes]]:
        """Yield (u, v) images of each flow field of a clip."""
        own = clip.quantiser
        as_stored = self.flow == "jpeg" and clip.codec == "jpeg" and own == self.quantiser
        num_fields = clip.num_frames - 1
        for start in range(0, num_fields, _AT_ONCE):
            stop = min(start + _AT_ONCE, num_fields)
            if as_stored:
                encoded = clip.encoded_flow(start, stop)
            else:
                q = clip.flow(start, stop)
                converted = q if own == self.quantiser else convert(q, own, self.quantiser)
                encoded = [self._encode(plane) for pair in converted for plane in pair]
                middle = num_fields // 2
                if start <= middle < stop:
                    self._measure(own.decode(q[middle - start]), encoded[2 * (middle - start) : 2 * (middle - start) + 2])
            yield from zip(encoded[::2], encoded[1::2], strict=True)

    def _encode(self, plane: NDArray[np.uint8]) -> bytes:
        import cv2

        if self.flow == "jpeg":
            return encode_jpeg(plane)
        good, encoded = cv2.imencode(".png", plane)
        assert good, f"OpenCV could not encode a plane of shape {plane.shape}"
        return bytes(encoded)

    def _measure(self, flow: NDArray[np.float32], images: Sequence[bytes]) -> None:
        """Compare a flow field with its images."""
        import cv2

        q = np.empty(flow.shape, np.uint8)
        for plane, image in zip(q, images, strict=True):
            if self.flow == "jpeg":
                decode_jpeg(image, plane)
            else:
                plane[:] = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
        error = np.abs(self.quantiser.decode(q) - flow)
        self._errors.append((float(error.mean()), float(error.max())))

    @property
    def mean_error_px(self) -> float:
        """Mean error of the measured flow fields, px/frame; 0 if all images are the stored ones."""
        return float(np.mean([mean for mean, _ in self._errors])) if self._errors else 0.0

    @property
    def max_error_px(self) -> float:
        """Largest error of the measured flow fields, px/frame."""
        return max((largest for _, largest in self._errors), default=0.0)


def convert(q: NDArray[np.uint8], own: Quantiser, other: Quantiser) -> NDArray[np.uint8]:
    """Return flow with another quantisation; no motion (byte 128) stays no motion."""
    levels = other.encode(own.decode(np.arange(256, dtype=np.uint8)))
    levels[128] = 128
    return levels[q]
