"""Change MATLAB files of networks at random, and tell what `convert` makes of each. Run as a process, since it may not survive.

``python matlab_fuzz.py FOLDER FIRST NUM`` prints a JSON line before each of the mutations `FIRST` to ``FIRST + NUM`` (its seed and what
was done), and another after it with a verdict: "refused" (by one line), "same" (a network of the same structure), or what is wrong.
``python matlab_fuzz.py FOLDER file FILE ...`` does so with files as they are. Memory and time of each are limited.
"""

from __future__ import annotations

import copy
import json
import resource
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from dagnn_files import KINDS, NAMES, VERSIONS
from matlab_files import header

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.convert.from_matconvnet import ConvertedNetwork, convert_matconvnet
from flowkit.model.convert.network_files import write_safetensors
from flowkit.model.settings.network import STResNetConfig

SPARE_BYTES = 1 << 30  # beyond what the process has once everything is imported; a file here has at most 3 MB
MOST_SECONDS = 120  # processor time for one file, which takes less than a second as a rule
MOST_CHARACTERS = 1000

Change = Callable[[bytearray, np.random.Generator], None]


def span(data: bytearray, draw: np.random.Generator) -> slice:
    """Return a random place in the data, of up to 64 bytes."""
    start = int(draw.integers(len(data)))
    return slice(start, start + int(draw.integers(1, 64)))


def flip(data: bytearray, draw: np.random.Generator) -> None:
    """Flip one to eight bits."""
    for at in draw.integers(0, len(data), int(draw.choice([1, 1, 1, 8]))):
        data[at] ^= 1 << int(draw.integers(8))


def overwrite(data: bytearray, draw: np.random.Generator) -> None:
    """Put noise, zeros or a large number in a place."""
    place = span(data, draw)
    length = len(data[place])
    data[place] = [draw.bytes(length), bytes(length), struct.pack("<i", 2**31 - 1)[:length].ljust(length, b"\xff")][int(draw.integers(3))]


def truncate(data: bytearray, draw: np.random.Generator) -> None:
    """Cut the end off."""
    del data[int(draw.integers(len(data))) :]


def repeat(data: bytearray, draw: np.random.Generator) -> None:
    """Put a piece of the file there twice."""
    place = span(data, draw)
    data[place.start : place.start] = data[place]


def exchange(data: bytearray, draw: np.random.Generator) -> None:
    """Exchange two pieces of equal size."""
    first, second = span(data, draw), int(draw.integers(len(data)))
    other = slice(second, second + len(data[first]))
    if first.stop <= other.start and other.stop <= len(data):
        data[first], data[other] = data[other], data[first]


def retag(data: bytearray, draw: np.random.Generator) -> None:
    """Give an element of versions 5 to 7 another type or size: the tags stand at multiples of eight bytes."""
    small = [at for at in draw.integers(0, max(len(data) // 8, 1), 2000) * 8 if 0 < int.from_bytes(data[at : at + 4], "little") < 20]
    at = int(small[0]) if small else 0
    field = at + 4 * int(draw.integers(2))
    old = int.from_bytes(data[field : field + 4], "little")
    new = draw.choice([0, old + 1, old + 8, max(old - 1, 0), 2 * old, 14, 15, 2**31 - 1, 2**32 - 8])
    data[field : field + 4] = struct.pack("<I", int(new) % 2**32)


CHANGES: list[Change] = [flip, flip, overwrite, truncate, repeat, exchange, retag]


@cache
def whole(kind: str, version: str, folder: Path) -> bytes:
    """Return the bytes of a sound file."""
    return VERSIONS[version](folder / "whole.mat", KINDS[kind].variables(KINDS[kind].graph())).read_bytes()


def repacked(data: bytes, change: Change, draw: np.random.Generator) -> bytes:
    """Change what a variable of version 7 unpacks to, and pack it again, so that its checksum fits."""
    variables, at = [], len(header())
    while at < len(data):
        _, size = struct.unpack_from("<II", data, at)
        variables.append(bytearray(zlib.decompress(data[at + 8 : at + 8 + size])))
        at += 8 + size
    change(max(variables, key=len), draw)
    packed = [zlib.compress(bytes(variable), 1) for variable in variables]
    return data[: len(header())] + b"".join(struct.pack("<II", 15, len(part)) + part for part in packed)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Return every place within nested structs and lists that can be assigned to: its container and its key."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *nodes(value[key]))]


def changed_numbers(values: Any, draw: np.random.Generator) -> Any:
    """Return an array with another value, shape or type."""
    values = values.copy()
    which = int(draw.integers(5))
    if which < 2:
        # All that a float32 can hold: what is folded into other weights may not fit then.
        values.ravel()[int(draw.integers(values.size))] = draw.choice([np.nan, np.inf, 0, -1, 1e30, 3e38, -3e38, 1e-38, 2.5])
        return values
    shapes = [values[..., :-1], np.concatenate([values, values], -1), values.T]
    return shapes[int(draw.integers(3))] if which < 4 else values.astype(str(draw.choice(["f8", "f4"])))


def changed_variables(kind: str, draw: np.random.Generator) -> tuple[dict[str, Any], str]:
    """Return what is in a file with one value changed, and what was done."""
    variables = copy.deepcopy(KINDS[kind].variables(KINDS[kind].graph()))
    places = nodes(variables)
    container, key = places[int(draw.integers(len(places)))]
    value = container[key]
    if isinstance(value, np.ndarray) and value.size and value.dtype.kind == "f" and draw.random() < 0.7:
        container[key] = changed_numbers(value, draw)
        return variables, f"other numbers for {key!r}"
    if isinstance(container, list) and isinstance(value, dict):  # an element of a struct array keeps the fields of the others
        other = container[int(draw.integers(len(container)))]
        if draw.random() < 0.5:
            container[key] = copy.deepcopy(other)
            return variables, "an element of a struct array twice"
        del container[key]
        return variables, "an element of a struct array left out"
    odd = [
        (),
        "",
        "x" * 100,
        "conv1",
        np.zeros((0, 0)),
        np.array([[1.5]]),
        np.array([[-1e9]]),
        ("conv1", "input"),
        {"a": "b"},
        {},
        [],
        ((),),
    ]
    container[key] = odd[int(draw.integers(len(odd)))]
    return variables, f"{str(container[key])[:20]!r} for {key!r}"


def mutate(path: Path, kind: str, version: str, draw: np.random.Generator) -> str:
    """Write a file of this kind with a random change, and return what was done."""
    if draw.random() < 0.35:
        variables, done = changed_variables(kind, draw)
        VERSIONS[version](path, variables)
        return done
    sound, change = whole(kind, version, path.parent), CHANGES[int(draw.integers(len(CHANGES)))]
    if version == "v7" and draw.random() < 0.7:
        path.write_bytes(repacked(sound, change, draw))
        return f"{change.__name__} in what is compressed"
    data = bytearray(sound)
    change(data, draw)
    path.write_bytes(data)
    return change.__name__


def structure(converted: ConvertedNetwork) -> Any:
    """Return what makes up a network, without its weights and the numbers that belong to them."""
    provenance, state = converted.checkpoint.provenance, converted.checkpoint.network
    assert isinstance(provenance.config.network, STResNetConfig)
    network = replace(provenance.config.network, rgb_offset=(0.0, 0.0, 0.0), motion_dropout=0.0)
    return provenance.config.phase, network, provenance.classes, {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


@cache
def sound_structure(kind: str, folder: Path) -> Any:
    """Return the structure of an unchanged network."""
    path = folder / "sound.mat"
    path.write_bytes(whole(kind, "v7", folder))
    return structure(convert_matconvnet(path, classes=KINDS[kind].class_names))


def verdict(path: Path, kind: str | None) -> str:
    """Convert a file, and return what is wrong, or "refused" or "same"."""
    try:
        converted = convert_matconvnet(path, classes=KINDS[kind].class_names if kind else NAMES)
        write_safetensors(path.with_suffix(".safetensors"), converted.checkpoint)
    except (CheckpointError, ParameterError) as error:
        text = str(error)
        is_one_line = text.isprintable() and 0 < len(text) <= MOST_CHARACTERS
        return "refused" if is_one_line else f"the refusal is not one line of at most {MOST_CHARACTERS} characters: {text[:2000]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    infinite = [name for name, tensor in converted.checkpoint.network.items() if not tensor.isfinite().all()]
    if infinite:
        return f"{infinite[0]} is not finite"
    if kind is None:
        return "a hostile file is read"
    return "same" if structure(converted) == sound_structure(kind, path.parent) else "a network of another structure"


def used_bytes() -> int:
    """Return this process's address space (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def main(folder: Path, names: list[str]) -> None:
    """Print the verdicts."""
    if names[0] == "file":
        tasks: list[Any] = names[1:]
    else:
        tasks = list(range(int(names[0]), int(names[0]) + int(names[1])))
        for kind in KINDS:
            sound_structure(kind, folder)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes() + SPARE_BYTES,) * 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
    for task in tasks:
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        if isinstance(task, str):
            say(task=task, done="as it is")
            say(task=task, verdict=verdict(Path(task), None))
            continue
        path, draw = folder / "mutated.mat", np.random.default_rng(task)
        version = list(VERSIONS)[task % len(VERSIONS)]  # every pair of a version and a kind comes up
        kind = list(KINDS)[task // len(VERSIONS) % len(KINDS)]
        say(task=task, done=f"{kind}, {version}: {mutate(path, kind, version, draw)}")
        say(task=task, verdict=verdict(path, kind))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
