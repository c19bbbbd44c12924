"""Compute optical flow between frames, quantise it, and mirror it.

    python examples/flow_of_frames.py            # a generated video
    python examples/flow_of_frames.py VIDEO      # the first 12 frames of any video

Nothing is kept on disk.
"""

import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from moving_squares import write_videos

import flowkit


def main(video: Path) -> None:
    """Print how fast the pixels of a video move."""
    info = flowkit.probe(video)
    print(f"{video.name}: {info.width}x{info.height}")

    # Frames come in batches, so that long videos fit into memory. Flow leads from each frame to the next one.
    batches = islice(flowkit.read_frames(video, short_side=64, batch_size=12), 1)
    frames = np.concatenate([batch.frames for batch in batches])  # uint8 (T, H, W, 3), RGB
    flow = flowkit.compute_flow(frames, mode="fast")  # float32 (T-1, 2, H, W), px/frame
    u, v = flow[:, 0], flow[:, 1]  # to the right, down
    speed = np.hypot(u, v)
    moving = speed > 0.5
    print(f"{moving.mean():.0%} of the pixels move, on average by ({u[moving].mean():.1f}, {v[moving].mean():.1f}) px/frame")

    # What a data set stores is bytes.
    quantiser = flowkit.Quantiser(bound=20)
    stored = quantiser.encode(flow)  # uint8, zero motion is 128
    error = np.abs(quantiser.decode(stored) - flow.clip(-20, 20)).max()
    print(f"stored as bytes, flow is off by at most {error:.3f} px/frame (the bound is {quantiser.max_error_px:.3f})")

    # A mirror image reverses the columns, and changes the sign of u.
    mirrored = stored[..., ::-1].copy()
    mirrored[:, 0] = quantiser.flip_u(mirrored[:, 0])
    before, after = (quantiser.decode(q)[:, 0].mean() for q in (stored, mirrored))
    print(f"mean of u: {before:.2f} px/frame, in the mirror image {after:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(write_videos(Path(folder), per_class=1) / "right" / "v_right_g01_c01.avi")
