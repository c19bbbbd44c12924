"""Trajectories of whole videos as Fisher vectors: from which pixels, complete after any interruption, and never mixed with others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from stop_requests import StopAfter
from trajectory_roots import make_trajectory_root

import flowkit
from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError, ManifestError, ParameterError
from flowkit.model.encoding import trajectory_work
from flowkit.model.encoding.descriptors.improved import DESCRIPTORS
from flowkit.model.encoding.descriptors.two_passes import encoder_path_of
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.encoder_files import load_encoder, save_encoder
from flowkit.model.encoding.fitting import fit_encoder
from flowkit.model.encoding.trajectory_features import trajectory_features
from flowkit.model.encoding.trajectory_videos import source_of
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_journal import journal_of
from flowkit.model.scoring.video_features import FeatureReport
from flowkit.video.decode import read_frames

FAST = {"num_components": 3, "camera_motion": "none", "sample_size": 600, "jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, their data root and its features. Treat it as read-only."""
    folder = tmp_path_factory.mktemp("made")
    report = trajectory_features(make_trajectory_root(folder), **FAST)
    assert (report.num_videos, report.failed, report.warnings) == (6, (), ())
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of the data root, without features, whose videos may be changed: they are in ``videos`` beside it."""
    shutil.copytree(made / "videos", tmp_path / "videos")
    shutil.copytree(made / "data", tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    record = tmp_path / "data" / "dataset.json"
    record.write_text(record.read_text(encoding="utf-8").replace(str(made), str(tmp_path)), encoding="utf-8")
    return tmp_path / "data"


def vectors_of(path: Path) -> dict[str, NDArray[np.float32]]:
    return {found.video_id: found.arrays["idt"][0] for found in FeatureFile(path).read_all()}


def encoder_of(root: Path) -> tuple[Path, Encoder]:
    path = root / "features" / "idt-k3-camera-none-split1-encoder.safetensors"
    return path, load_encoder(path)


def descriptors_of(path: Path) -> dict[str, NDArray[np.float32]]:
    frames = np.concatenate([batch.frames for batch in read_frames(path, short_side=None)])
    found = flowkit.improved_trajectories(frames, camera_motion="none")
    return {name: getattr(found, name) for name in DESCRIPTORS}


def test_a_vector_is_the_encoded_trajectories_of_the_video_file(made: Path) -> None:
    stored = FeatureFile(made / "data" / "features" / "idt-k3-camera-none-split1.h5")
    _, encoder = encoder_of(made / "data")
    assert stored.provenance["streams"] == {"idt": 2 * 3 * (15 + 48 + 54 + 48 + 48)}
    assert (stored.provenance["pixels"], stored.provenance["camera_motion"]) == ("source", "none")
    assert stored.provenance["encoder_sha256"] == encoder.digest()
    assert stored.provenance["trained_on"]["digest"] == Dataset.open(made / "data").split(1).digest
    for video_id in ("Sliding/train000", "Pulsing/test000"):
        found = stored.read(video_id)
        descriptors = descriptors_of(made / "videos" / f"{video_id}.avi")
        assert len(descriptors["hog"]) > 20
        np.testing.assert_allclose(found.arrays["idt"][0], encoder.encode([descriptors]), atol=1e-4)
        assert (found.num_frames, found.frames.tolist()) == (18, [9])


def test_the_encoder_is_fitted_to_the_training_videos_only(made: Path) -> None:
    _, encoder = encoder_of(made / "data")
    train = [record.video_id for record in Dataset.open(made / "data").split(1).train]
    sample = [descriptors_of(made / "videos" / f"{video_id}.avi") for video_id in train]
    assert all(len(one["hog"]) <= 150 for one in sample) == (encoder.provenance["num_descriptors"]["hog"] < 600)
    assert encoder.provenance["num_descriptors"]["hog"] == sum(min(len(one["hog"]), 150) for one in sample)
    assert encoder.provenance["without"] == []
    if all(len(one["hog"]) <= 150 for one in sample):  # nothing was left out, so the sample is known
        whole = {name: np.concatenate([one[name] for one in sample]) for name in DESCRIPTORS}
        again = fit_encoder(whole, num_components=3, seed=0, provenance={})
        for name, array in again.arrays().items():
            np.testing.assert_allclose(encoder.arrays()[name], array, atol=1e-6)


def test_any_number_of_processes_gives_the_same_bytes(made: Path, home: Path) -> None:
    report = trajectory_features(home, **{**FAST, "jobs": 2})
    assert report.path.read_bytes() == (made / "data" / "features" / report.path.name).read_bytes()
    assert encoder_of(home)[0].read_bytes() == encoder_of(made / "data")[0].read_bytes()


def test_videos_that_are_there_are_not_computed_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a video is computed again")

    before = (made / "data" / "features" / "idt-k3-camera-none-split1.h5").stat().st_mtime_ns
    monkeypatch.setattr(trajectory_work, "run_trajectory_task", refuse)
    report = trajectory_features(made / "data", **FAST)
    assert (report.num_videos, report.num_kept) == (6, 6)
    assert report.path.stat().st_mtime_ns == before


@pytest.mark.parametrize("looks", [7, 11])
def test_a_run_that_is_stopped_goes_on_where_it_was(made: Path, home: Path, looks: int) -> None:
    reports: list[FeatureReport] = []
    for _ in range(40):
        reports.append(trajectory_features(home, **FAST, stop=StopAfter(looks)))
        if not reports[-1].stopped:
            break
        assert not reports[-1].path.exists()
    assert not reports[-1].stopped
    assert len(reports) > 1
    path = reports[-1].path
    assert path.read_bytes() == (made / "data" / "features" / path.name).read_bytes()
    assert sorted(file.name for file in path.parent.iterdir()) == [encoder_path_of(path).name, path.name]


def test_where_the_video_files_are_gone_the_stored_frames_are_read(made: Path, home: Path) -> None:
    shutil.rmtree(home.parent / "videos")
    report = trajectory_features(home, **FAST)
    assert report.warnings == ("the video files are gone, so trajectories are computed from the stored frames",)
    assert FeatureFile(report.path).provenance["pixels"] == "stored"
    with ClipSource(find_clips(home)) as clips:
        frames = clips.clip("Sliding/train000").frames(slice(None))
    found = flowkit.improved_trajectories(frames, camera_motion="none")
    expected = encoder_of(home)[1].encode([{name: getattr(found, name) for name in DESCRIPTORS}])
    np.testing.assert_allclose(vectors_of(report.path)["Sliding/train000"], expected, atol=1e-4)
    assert not np.allclose(expected, vectors_of(made / "data" / "features" / report.path.name)["Sliding/train000"], atol=0.1)


def test_one_file_never_mixes_pixels(home: Path) -> None:
    (home.parent / "videos" / "Sliding" / "test000.avi").unlink()
    report = trajectory_features(home, **FAST)
    assert "1 video file of 6" in report.warnings[0]
    assert "Sliding/test000" in report.warnings[0]
    assert FeatureFile(report.path).provenance["pixels"] == "stored"
    with pytest.raises(CheckpointError, match="differ in pixels"):
        trajectory_features(home, **FAST, pixels="source")
    report = trajectory_features(home, **FAST, pixels="source", replace=True)
    assert [clip.video_id for clip in report.failed] == ["Sliding/test000"]
    assert "is missing" in report.failed[0].reason
    assert len(FeatureFile(report.path)) == 5


def test_another_video_file_of_the_same_name_is_an_error_of_this_video(home: Path) -> None:
    videos = home.parent / "videos"
    shutil.copy(videos / "Pulsing" / "test000.avi", videos / "Sliding" / "test000.avi")
    shutil.copy(videos / "Pulsing" / "test000.avi", videos / "Sliding" / "train001.avi")
    report = trajectory_features(home, **FAST)
    assert [clip.video_id for clip in report.failed] == ["Sliding/test000", "Sliding/train001"]
    assert all("its SHA-256 is another" in clip.reason for clip in report.failed)
    assert report.num_videos == 4
    assert encoder_of(home)[1].provenance["without"] == ["Sliding/train001"]


def test_a_fitted_encoder_needs_no_training_videos(made: Path, home: Path, tmp_path: Path) -> None:
    path, encoder = encoder_of(made / "data")
    wanted = ["Sliding/test000", "Pulsing/test000"]
    report = trajectory_features(home, encoder=path, videos=wanted, jobs=1, progress=False)
    assert report.path.name == "idt-k3-camera-none-split1.h5"
    before = vectors_of(made / "data" / "features" / report.path.name)
    after = vectors_of(report.path)
    assert sorted(after) == sorted(wanted)
    for video_id in wanted:
        np.testing.assert_array_equal(after[video_id], before[video_id])
    with pytest.raises(ParameterError, match="--camera-motion none, not sift"):
        trajectory_features(home, encoder=path, camera_motion="sift")
    save_encoder(tmp_path / "other.safetensors", Encoder(encoder.types[:2], encoder.provenance))
    with pytest.raises(CheckpointError, match="encodes other descriptors than those of trajectories"):
        trajectory_features(home, encoder=tmp_path / "other.safetensors")


def test_video_files_without_a_data_root_are_encoded_by_a_fitted_encoder(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = encoder_of(made / "data")
    files = [made / "videos" / "Sliding" / "test000.avi", made / "videos" / "Pulsing" / "train000.avi"]
    report = trajectory_features("nowhere", files=files, encoder=path, jobs=1, progress=False)
    assert (report.path, report.num_videos) == (Path("features/idt-k3-camera-none-split1.h5"), 2)
    before, stored = vectors_of(made / "data" / "features" / report.path.name), FeatureFile(report.path)
    np.testing.assert_array_equal(stored.read("test000").arrays["idt"][0], before["Sliding/test000"])
    about = stored.read("train000")
    assert (about.num_frames, about.frame_rate, about.frames.tolist()) == (18, "12/1", [9])
    assert trajectory_features("nowhere", files=files, encoder=path, jobs=1, progress=False).num_kept == 2
    with pytest.raises(ParameterError, match="files need an encoder"):
        trajectory_features(made / "data", files=files)


def test_videos_without_trajectories_have_a_vector_of_zeros_and_fit_no_encoder(made: Path, tmp_path: Path) -> None:
    from flowkit.demo_videos import write_video

    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8), 18, axis=0)
    for name in ("still", "short"):
        write_video(tmp_path / f"{name}.avi", still if name == "still" else still[:5], frame_rate=25)
    report = trajectory_features(
        tmp_path,
        files=sorted(tmp_path.glob("*.avi")),
        encoder=encoder_of(made / "data")[0],
        output=tmp_path / "f.h5",
        jobs=1,
        progress=False,
    )
    assert (report.num_videos, report.failed) == (2, ())
    for vector in vectors_of(report.path).values():
        assert not vector.any()


def test_what_cannot_be_is_refused_before_any_work(made: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no split 7"):
        trajectory_features(home, split=7)
    with pytest.raises(ManifestError, match="no video 'Sliding/test001'"):
        trajectory_features(home, videos=["Sliding/test001"])
    with pytest.raises(ParameterError, match="num_components must be at least 1"):
        trajectory_features(home, num_components=0)
    with pytest.raises(CheckpointError, match="cannot read"):
        trajectory_features(home, encoder=tmp_path / "none.safetensors")
    assert not list((home / "features").glob("*.h5")) if (home / "features").exists() else True
    path, encoder = encoder_of(made / "data")
    copied = home / "features" / path.name
    copied.parent.mkdir(exist_ok=True)
    save_encoder(copied, Encoder(encoder.types, {**encoder.provenance, "seed": 5}))
    with pytest.raises(CheckpointError, match="fitted with other settings, which differ in seed"):
        trajectory_features(home, **FAST)


def test_features_of_another_encoder_are_not_mixed_with_these(made: Path, home: Path) -> None:
    path, encoder = encoder_of(made / "data")
    output = home / "f.h5"
    trajectory_features(home, encoder=path, videos=["Sliding/test000"], output=output, jobs=1, progress=False)
    other = home / "other.safetensors"
    save_encoder(other, Encoder(encoder.types, {**encoder.provenance, "seed": 5}))
    with pytest.raises(FeaturesError, match="differ in encoder, encoder_sha256"):
        trajectory_features(home, encoder=other, videos=["Pulsing/test000"], output=output, jobs=1, progress=False)
    trajectory_features(home, encoder=path, videos=["Pulsing/test000"], output=output, jobs=1, progress=False)
    assert FeatureFile(output).video_ids == ("Pulsing/test000", "Sliding/test000")
    assert not journal_of(output).exists()


def test_the_recorded_name_of_a_video_file_leads_nowhere_else(home: Path) -> None:
    from types import SimpleNamespace

    dataset = Dataset.open(home)

    def clip(**attributes: str) -> object:
        about = {"source_sha256": "0" * 64, "source_name": "a.avi", **attributes}
        return SimpleNamespace(video_id="run/a", attributes=SimpleNamespace(**about))

    assert source_of(dataset, clip()) == home.parent / "videos" / "run" / "a.avi"  # type: ignore[arg-type]
    for attributes in ({"source_name": "../a.avi"}, {"source_name": "/etc/passwd"}, {"source_name": ".."}, {"source_sha256": ""}):
        assert source_of(dataset, clip(**attributes)) is None  # type: ignore[arg-type]
