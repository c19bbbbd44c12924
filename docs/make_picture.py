"""Draw docs/pictures/overview.png, the picture of the README: ``python docs/make_picture.py FOLDER``, the output of `flowkit demo`.

One video of the demo: frames, their flow, and what each network makes of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import flowkit
from flowkit.demo_videos import class_names
from flowkit.describe.flow_colour import flow_to_colour
from flowkit.model import Predictor

PICTURE = Path(__file__).resolve().parent / "pictures" / "overview.png"
NUM_FRAMES, STEP = 4, 2
ROWS = {"appearance": "appearance", "motion": "motion", "st-resnet-star": "ST-ResNet*"}


def main(demo: Path) -> None:
    """Draw the first test video of one of the classes."""
    dataset = flowkit.Dataset.open(demo / "flowkit-data")
    split = dataset.split(1)
    record = next(record for record in split.test if record.class_name == list(class_names())[-2])
    with flowkit.ShardReader(dataset.root / "shards" / record.shard) as shard:
        clip = shard.clip(record.video_id)
        indices = [3 + STEP * k for k in range(NUM_FRAMES)]
        frames = clip.frames(indices)
        flow = np.concatenate([clip.quantiser.decode(clip.flow(index, index + 1)) for index in indices])
    (video,) = (demo / "videos").glob(f"{record.video_id}.*")
    answers = {
        name: Predictor.open(demo / "flowkit-data" / "runs" / "default" / "split1" / phase, device="cpu").predict(video, progress=False)
        for phase, name in ROWS.items()
    }

    figure = plt.figure(figsize=(11, 2.9), layout="constrained")
    grid = figure.add_gridspec(2, NUM_FRAMES + 2)
    speed = float(np.percentile(np.hypot(flow[:, 0], flow[:, 1]), 99))
    for row, (title, pictures) in enumerate({"frames": frames, "flow": flow_to_colour(flow, scale_px=speed)}.items()):
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            if not column:
                axes.set_ylabel(title, fontsize=11)
    bars = figure.add_subplot(grid[:, NUM_FRAMES:])
    names = list(split.classes)
    for k, (name, answer) in enumerate(answers.items()):
        shares = [answer.probabilities[each] for each in names]
        bars.barh(np.arange(len(names)) + (k - 1) * 0.27, shares, height=0.25, label=name, color=("#7aa6d8", "#e3a33b", "#1b6b43")[k])
    bars.set(yticks=range(len(names)), yticklabels=[f"{each} (true)" if each == record.class_name else each for each in names])
    bars.set(xlabel="probability", xlim=(0, 1))
    bars.invert_yaxis()
    bars.legend(fontsize=8, frameon=False)
    bars.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
