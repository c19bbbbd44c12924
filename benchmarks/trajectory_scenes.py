"""Compare the ways to find the camera's motion by how well improved trajectories then tell motions apart.

    python benchmarks/trajectory_scenes.py [--shake 10] [--videos 30] [--train 16 8 4] [--rounds 10] [--components 16] [--jobs 2]

Generated scenes of 160x120 and 24 frames, as many of each of three motions as `--videos` says. The trajectories of each video are found
once for each way. Then, for every number of training videos of each class in `--train`, the videos are divided at random `--rounds`
times; the encoder and the SVM see the training videos only, and all ways see the same divisions. A row of the table is the mean accuracy
over the divisions, and its mean difference to that without compensation with the standard error of that mean.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from bench_flow import machine
from numpy.typing import NDArray

from flowkit.demo_videos import APPEARANCES, MOTIONS, SceneSettings, draw_scene, render
from flowkit.model.encoding.descriptor_sample import VideoSample, gathered, share_of
from flowkit.model.encoding.descriptors.improved import DESCRIPTORS
from flowkit.model.encoding.fitting import fit_encoder
from flowkit.model.encoding.linear_svm import train_svm
from flowkit.trajectories.frame_motion import CAMERA_MOTIONS
from flowkit.trajectories.improved import improved_trajectories

if TYPE_CHECKING:
    from collections.abc import Sequence

Descriptors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Video:
    """The descriptors of a generated video for each way to find the camera's motion."""

    name: str
    label: int
    descriptors: dict[str, Descriptors]


def found(label: int, number: int, shake: float) -> Video:
    """Draw a video and find its trajectories."""
    generator = np.random.default_rng([7, label, number])
    scene = draw_scene(MOTIONS[label], generator, SceneSettings(num_frames=24, shake=shake))
    frames = np.stack(list(render(scene, str(generator.choice(list(APPEARANCES))))))
    descriptors = {}
    for how in CAMERA_MOTIONS:
        trajectories = improved_trajectories(frames, camera_motion=how)
        descriptors[how] = {name: getattr(trajectories, name) for name in DESCRIPTORS}
    return Video(f"{MOTIONS[label]}/{number:03d}", label, descriptors)


def accuracy(train: Sequence[Video], test: Sequence[Video], how: str, *, num_components: int, seed: int) -> float:
    """Return the share of test videos that are classified correctly, in percent."""
    samples = {}
    for video in train:
        sample = VideoSample(video.name, share_of(len(train)), seed=seed)
        if len(video.descriptors[how]["hog"]):
            sample.add(video.descriptors[how])
        samples[video.name] = sample.rows()
    encoder = fit_encoder(gathered(samples), num_components=num_components, seed=seed, provenance={})

    def vectors(videos: Sequence[Video]) -> NDArray[np.float32]:
        return np.stack([encoder.encode([video.descriptors[how]]) for video in videos])

    svm = train_svm(vectors(train), [video.label for video in train], MOTIONS)
    scores = svm.scores_of(MOTIONS, vectors(test))
    return 100 * float((scores.argmax(1) == [video.label for video in test]).mean())


def one_round(videos: Sequence[Video], num_train: int, seed: int, num_components: int) -> dict[str, float]:
    """Return the accuracy of each way on one random division."""
    warnings.simplefilter("ignore")
    generator = np.random.default_rng([num_train, seed])
    train, test = [], []
    for label in range(len(MOTIONS)):
        of_class = [video for video in videos if video.label == label]
        order = generator.permutation(len(of_class))
        train += [of_class[k] for k in order[:num_train]]
        test += [of_class[k] for k in order[num_train:]]
    return {how: accuracy(train, test, how, num_components=num_components, seed=seed) for how in CAMERA_MOTIONS}


def main() -> None:
    """Print one table for each number of training videos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shake", type=float, default=10.0, help="how much the camera shakes, as a multiple of the demo's")
    parser.add_argument("--videos", type=int, default=30, help="videos of each motion")
    parser.add_argument("--train", type=int, nargs="+", default=[16, 8, 4], help="numbers of training videos of each motion")
    parser.add_argument("--rounds", type=int, default=10, help="random divisions for each number")
    parser.add_argument("--components", type=int, default=16, help="components of each mixture")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    print(f"{machine()}; shake {options.shake:g} times the demo's, {options.videos} videos of each motion, K = {options.components}")
    parallel = joblib.Parallel(n_jobs=options.jobs)
    tasks: Any = (joblib.delayed(found)(label, number, options.shake) for label in range(len(MOTIONS)) for number in range(options.videos))
    videos: Any = parallel(tasks)
    for how in CAMERA_MOTIONS:
        counts = [len(video.descriptors[how]["hog"]) for video in videos]
        print(f"{how}: {np.mean(counts):.0f} trajectories in a video, at least {min(counts)}")
    for num_train in options.train:
        rounds: Any = parallel(joblib.delayed(one_round)(videos, num_train, seed, options.components) for seed in range(options.rounds))
        print(f"\n{num_train} training videos of each motion, {options.rounds} divisions")
        print("| way | accuracy, % | minus none | worst |\n|---|--:|--:|--:|")
        for how in CAMERA_MOTIONS:
            values = np.array([one[how] for one in rounds])
            differences = values - [one["none"] for one in rounds]
            error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else float("nan")
            print(f"| {how} | {values.mean():.1f} | {differences.mean():+.1f} ± {error:.1f} | {values.min():.1f} |")


if __name__ == "__main__":
    main()
