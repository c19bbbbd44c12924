"""The loader's batches on the device: on CUDA they are copied while it still computes, on a CPU they are passed through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")


class DeviceBatches(Generic[Batch]):
    """Batches on the device, in order, and how long it waited for them.

    Parameters
    ----------
    batches : iterable of (nested) tuples of tensors
        For CUDA they should be in pinned memory, or a copy stops the host.
    device : torch.device
        Where the batches go.

    Attributes
    ----------
    seconds_waited : float
        The time in which the loader had no batch ready and the device had nothing left to do.

    Notes
    -----
    On CUDA, copies have their own stream. The host launches a sub-batch's computation and returns here long before the device has
    finished, so that the copy of the next batch overlaps it. `look_ahead` starts a copy before the host itself waits for the device.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self._batches = iter(batches)
        self._device = device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead: Batch | None = None
        self.seconds_waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self._fetch() if self._ahead is None else self._ahead
        self._ahead = None
        if batch is None:
            raise StopIteration
        if self._copies is not None:
            computation = torch.cuda.current_stream(self._device)
            computation.wait_stream(self._copies)
            for tensor in tensors_of(batch):
                tensor.record_stream(computation)  # other copies must not reuse its memory before the computation is done
        return batch

    def look_ahead(self) -> None:
        """Start the copy of the next batch, if there is one; on a CPU, do nothing."""
        if self._copies is not None and self._ahead is None:
            self._ahead = self._fetch()

    def _fetch(self) -> Batch | None:
        """Take the loader's next batch and begin its copy; return None after the last."""
        began = time.monotonic()
        launched = None if self._copies is None else torch.cuda.current_stream(self._device).record_event()
        batch = next(self._batches, None)
        if launched is None or launched.query():  # else the device was busy all the time
            self.seconds_waited += time.monotonic() - began
        if self._copies is None or batch is None:
            return batch
        with torch.cuda.stream(self._copies):
            copied: Batch = to_device(batch, self._device)
        return copied


def to_device(batch: Any, device: torch.device) -> Any:
    """Return a nested tuple with its tensors on the device; a copy from pinned memory does not stop the host."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, (tuple, list)):
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors in a nested tuple."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (tuple, list)):
        for part in batch:
            yield from tensors_of(part)
