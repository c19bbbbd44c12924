"""The trained network that a phase started from with ``--init-from``, as the phase's record keeps it (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Classifier = Literal["kept", "reordered", "new"]
_SHA256_SHOWN = 12


@dataclass(frozen=True)
class FirstNetwork:
    """Where a phase's first weights come from, if not from the phases before it or from a ResNet.

    Parameters
    ----------
    source : str
        What the user named; of an absolute path only the end, because weights are passed on.
    files : dict from phase to str
        SHA-256 of each file of weights that was used, by the phase of its network.
    classifiers : dict from phase to {"kept", "reordered", "new"}
        What became of each classifier: ``kept`` for the same classes, ``reordered`` for the same in another order, and ``new`` random
        weights for others.
    trained_on : str
        The data of its training, in words.
    differences : tuple of str
        In what its frames and flow differ from those of this training, in words.
    """

    source: str
    files: dict[str, str]
    classifiers: dict[str, Classifier]
    trained_on: str = ""
    differences: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the user named, and the files by their digests."""
        return f"{self.source} ({', '.join(f'{phase} {digest[:_SHA256_SHOWN]}…' for phase, digest in self.files.items())})"

    def __str__(self) -> str:
        digests = " and ".join(f"{phase} (SHA-256 {digest[:_SHA256_SHOWN]}…)" for phase, digest in self.files.items())
        made = sorted(set(self.classifiers.values()))
        of = f", trained on {self.trained_on}" if self.trained_on else ""
        return f"{digests} of {self.source}{of}; classifier {' and '.join(made)}" + "".join(f"; {text}" for text in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """Return it as built-in types."""
        return asdict(self) | {"differences": list(self.differences)}

    @classmethod
    def from_dict(cls, values: object) -> FirstNetwork:
        """Read what `to_dict` returned; a `TypeError` if it is anything else."""
        if not isinstance(values, dict) or set(values) - {item.name for item in fields(cls)}:
            raise TypeError("the first network is not a table of its fields")
        made = cls(**{**values, "differences": tuple(values.get("differences", ()))})
        tables: tuple[Mapping[str, str], ...] = (made.files, made.classifiers)
        good = all(isinstance(table, dict) for table in tables) and set(made.classifiers.values()) <= set(get_args(Classifier))
        texts = [made.source, made.trained_on, *made.differences, *(text for table in tables for pair in table.items() for text in pair)]
        if not good or not all(isinstance(text, str) for text in texts):
            raise TypeError("a value of the first network has the wrong type")
        return made
