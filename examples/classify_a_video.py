"""Classify video files with trained networks.

    python examples/classify_a_video.py                  # tiny networks, trained first, in a temporary folder
    python examples/classify_a_video.py TRAINED VIDEO    # TRAINED is a data root, or the weights of one phase

The command `flowkit predict` does the same.
"""

import sys
import tempfile
from pathlib import Path

import train_and_evaluate

import flowkit.model


def main(trained: Path, video: Path) -> None:
    """Print the classes of a video, the most probable first."""
    predictor = flowkit.model.Predictor.open(trained, device="cpu")
    prediction = predictor.predict(video)
    if prediction.status not in ("ok", "damaged"):
        sys.exit(f"{video}: {prediction.error}")
    for name, probability in list(prediction.probabilities.items())[:5]:
        print(f"{name:<8} {probability:.0%}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            train_and_evaluate.main(Path(folder))
            main(Path(folder) / "flowkit-data", Path(folder) / "videos" / "right" / "v_right_g01_c01.avi")
