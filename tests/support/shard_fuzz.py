"""Change a shard at random, and tell whether reader and verifier saw it. Run as a process, since HDF5 may not survive.

``python shard_fuzz.py FOLDER FIRST NUM`` prints one JSON line a mutation: its seed, what was done, and a verdict: "refused" (the
reader raised, and verify has faults), "unused" (verify has none, and everything reads as it was), or what is wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flowkit.errors import ShardFormatError
from flowkit.shards.check import check_file
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import CODECS
from flowkit.shards.writer import write_shard


def make_shard(folder: Path) -> Path:
    """A shard of five videos, one of each codec and one without flow."""
    from shard_files import write_clip

    for k, codec in enumerate(CODECS):
        write_clip(folder / f"{codec}.h5", f"c/{codec}", num_frames=5, seed=k, codec=codec)
    write_shard(folder / "shard.h5", [folder / f"{codec}.h5" for codec in sorted(CODECS)])
    return folder / "shard.h5"


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Change a file in place; return what was done."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "flip", "flips", "truncate", "zero", "noise", "swap", "repeat", "attribute", "values"])
    place, other = sorted(int(p) for p in rng.integers(0, len(data), 2))
    length = int(rng.integers(1, 64))
    if kind == "flip":
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == "flips":
        for at in rng.integers(0, len(data), 8):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == "truncate":
        del data[place:]
    elif kind == "zero":
        data[place : place + length] = bytes(len(data[place : place + length]))
    elif kind == "noise":
        data[place : place + length] = rng.bytes(len(data[place : place + length]))
    elif kind == "swap":
        first, second = data[place : place + length], data[other : other + length]
        if place + length <= other and len(first) == len(second):
            data[place : place + length], data[other : other + length] = second, first
    elif kind == "repeat":
        data[place:place] = data[place : place + length]
    else:
        return f"{kind}: {_edit(path, kind, rng)}"
    path.write_bytes(data)
    return f"{kind} at {place} ({other}, {length})"


def _edit(path: Path, kind: str, rng: np.random.Generator) -> str:
    """Change attributes or values through HDF5, so that its own checksums fit."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        videos = [file[f"videos/{k:06d}"] for k in range(len(CODECS))]
        video, other = (videos[int(k)] for k in rng.permutation(len(CODECS))[:2])
        if kind == "attribute":
            name = str(rng.choice(sorted(video.attrs)))
            before, theirs = video.attrs[name], other.attrs[name]
            if isinstance(before, np.integer):
                value: Any = np.int64(rng.choice([0, -1, 1 << 40, int(before) + 1, int(before) - 1]))
            else:
                swapped = bytearray(theirs.encode() if isinstance(theirs, str) else bytes(theirs)) or bytearray(b"?")
                if swapped == before or rng.integers(2):
                    swapped[int(rng.integers(len(swapped)))] = int(rng.integers(32, 127))
                value = np.array(bytes(swapped), dtype=h5py.string_dtype("utf-8", len(swapped)))
            del video.attrs[name]
            video.attrs.create(name, value)
            return f"{video.name} {name} = {value!r}"
        name = str(rng.choice([name for name in ("frame_offsets", "frame_crc32", "frames", "flow") if name in video]))
        values = video[name][...]
        at = tuple(int(rng.integers(n)) for n in values.shape)
        values[at] = rng.choice([0, 1, int(values[at]) ^ 1, 255])
        video[name][...] = values
        return f"{video.name} {name}{list(at)} = {values[at]}"


def contents(path: Path) -> dict[str, Any]:
    """Everything that a reader gives, as far as it gives it: attributes and arrays as bytes, or None where it refuses."""
    got: dict[str, Any] = {}
    try:
        with ShardReader(path) as reader:
            got["ids"] = reader.video_ids
            for video_id in reader.video_ids:
                try:
                    clip = reader.clip(video_id)
                except ShardFormatError:
                    continue
                got[f"{video_id} attributes"] = (clip.attributes.to_json(), clip.sha256)
                for k in range(clip.num_frames):
                    _try(got, f"{video_id} frame {k}", lambda clip=clip, k=k: clip.frames([k]).tobytes())
                    if k and clip.has_flow:
                        _try(got, f"{video_id} flow {k}", lambda clip=clip, k=k: clip.flow(k - 1, k).tobytes())
    except ShardFormatError:
        pass
    return got


def _try(got: dict[str, Any], key: str, read: Any) -> None:
    try:
        got[key] = read()
    except ShardFormatError:
        got[key] = None


def verdict(path: Path, sound: dict[str, Any], done: str) -> str:
    """Compare what reader and verifier make of a changed file with the sound one."""
    got, faults = contents(path), check_file(path, deep=True, digest=False)["faults"]
    if faults:
        through_hdf5 = done.startswith(("attribute", "values"))
        wrong = [key for key, value in got.items() if value is not None and value != sound.get(key)]
        # HDF5 edits come with fitting metadata checksums: only verify, which knows the sha256, can tell.
        return "refused" if through_hdf5 or not wrong else f"reader accepted {wrong[0]}"
    return "unused" if got == sound else "verify saw nothing"


def main(folder: Path, first: int, num: int) -> None:
    """Print the verdict on mutations `first` to ``first + num``."""
    path = make_shard(folder)
    whole, sound = path.read_bytes(), contents(path)
    for seed in range(first, first + num):
        path.write_bytes(whole)
        rng = np.random.default_rng(seed)
        done = mutate(path, rng)
        answer = "same" if path.read_bytes() == whole else verdict(path, sound, done)
        print(json.dumps({"seed": seed, "done": done, "verdict": answer}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
