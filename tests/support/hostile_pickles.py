"""A pickle that does harm when it is loaded without restrictions."""

from __future__ import annotations

import os
from typing import Any


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)
