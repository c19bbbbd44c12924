"""Extract flow from a folder of videos, pack it, and read stacks of flow in a DataLoader.

    python examples/stacks_in_a_dataloader.py               # generated videos, in a temporary folder
    python examples/stacks_in_a_dataloader.py VIDEOS ROOT   # your own: VIDEOS/<class>/<video>, and the data root to make

The second form keeps the data root; run it again, and only new videos are extracted.
"""

import sys
import tempfile
from pathlib import Path

import torch
from moving_squares import write_videos
from torch.utils.data import DataLoader, Dataset

import flowkit


class Stacks(Dataset):
    """Ten flow fields in the middle of each training video, as (20, H, W) floats, and the video's label."""

    def __init__(self, root: Path, split: int = 1) -> None:
        dataset = flowkit.Dataset.open(root)
        self.records = dataset.split(split).train
        self.shards = {record.shard: flowkit.ShardReader(dataset.shard_path(record)) for record in self.records}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self.records[index]
        clip = self.shards[record.shard].clip(record.video_id)
        start = (clip.num_frames - 1 - 10) // 2
        flow = torch.from_numpy(clip.flow(start, start + 10))  # uint8 (10, 2, H, W)
        return (flow.flatten(0, 1).float() - 128) / 57.63, record.label  # what flowkit's networks get


def main(videos: Path, root: Path) -> None:
    """Make a data root and read one epoch from it."""
    report = flowkit.extract(videos, root, settings=flowkit.ExtractSettings(short_side=64))
    print(f"{len(report.done)} videos extracted, {len(report.skipped)} done before, {len(report.failed)} failed")
    flowkit.pack(root, split=1)
    split = flowkit.Dataset.open(root).split(1)
    print(f"{len(split.train)} videos to train, {len(split.test)} to test, in classes {', '.join(split.classes)}")
    for stacks, labels in DataLoader(Stacks(root), batch_size=4, shuffle=True):
        print(tuple(stacks.shape), [split.classes[label] for label in labels])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(write_videos(Path(folder) / "videos"), Path(folder) / "flowkit-data")
