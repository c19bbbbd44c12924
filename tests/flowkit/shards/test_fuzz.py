"""Shards changed at random: no crash, no hang, no traceback, no wrong data; and every changed bit that matters is reported.

``FLOWKIT_FUZZ=1000 pytest tests/flowkit/shards/test_fuzz.py`` tries that many mutations instead of 150.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from shard_files import write_clip
from shard_fuzz import contents

from flowkit.shards.check import check_file

NUM_MUTATIONS = int(os.environ.get("FLOWKIT_FUZZ", "150"))


def test_no_mutation_of_a_shard_crashes_or_passes_unseen(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[2] / "support" / "shard_fuzz.py"), str(tmp_path), "0", str(NUM_MUTATIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 + NUM_MUTATIONS)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {results[-1:]}: {done.stderr[-2000:]}"
    assert len(results) == NUM_MUTATIONS
    assert [result for result in results if result["verdict"] not in ("refused", "unused", "same")] == []
    assert sum(result["verdict"] == "refused" for result in results) > 0.9 * NUM_MUTATIONS


def test_every_flipped_bit_that_is_not_in_an_unused_byte_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_clip(path, num_frames=2)
    whole, sound = path.read_bytes(), contents(path)
    unseen = []
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        if not check_file(path, deep=False, digest=False)["faults"]:
            assert contents(path) == sound
            unseen.append(at)
    assert len(unseen) < len(whole) // 200
