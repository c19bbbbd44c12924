"""Train tiny networks on generated videos, for a few steps, and evaluate them.

    python examples/train_and_evaluate.py           # in a temporary folder
    python examples/train_and_evaluate.py FOLDER    # keeps videos, data root, weights and results there

It shows how the functions are called. To see the networks learn, run `flowkit demo`, which trains longer.
"""

import sys
import tempfile
from pathlib import Path

from moving_squares import write_videos

import flowkit
import flowkit.model

# The recipe `small`, made much smaller still: any setting of `flowkit.model.TrainConfig` or of the network may be given.
TINY = {"base_width": 4, "stage_units": (2, 2, 2, 2), "input_size": 32, "batch": 4, "bn_group": 4, "steps": 3, "warmup_steps": 0}


def main(folder: Path) -> None:
    """Make a data root, train the four phases, and print the table."""
    root = folder / "flowkit-data"
    flowkit.extract(write_videos(folder / "videos"), root, settings=flowkit.ExtractSettings(short_side=64))
    flowkit.pack(root, split=1)

    execution = flowkit.model.Execution(device="cpu")
    report = flowkit.model.train(root, recipe="small", overrides=TINY, execution=execution)
    print(f"trained: {', '.join(report.trained)}")

    (results,) = flowkit.model.evaluate(root, execution=execution).splits
    for name, row in results.rows.items():
        print(f"{name:<12} {row.top1:.0%} of {len(results.labels)} test videos")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
