"""Features of videos: those of the test protocol, complete after any interruption, and never mixed with others."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_lines import call_flowkit, run_flowkit
from phases import PHASES, STREAMS_OF
from random_networks import random_checkpoints

from flowkit.dataset.example import example_root
from flowkit.dataset.manifest import read_split
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError, ManifestError, ParameterError
from flowkit.files import temporary_name
from flowkit.model.compute.execution import VIDEOS_AT_ONCE, Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs.checkpoint import load_checkpoint, save_weights
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.runs.trained_network import load_network
from flowkit.model.scoring.clip_inputs import ClipInputs
from flowkit.model.scoring.feature_files import FeatureFile, holds_other_data
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.scoring.feature_journal import FeatureJournal, VideoToDo, WindowName, journal_of
from flowkit.model.scoring.video_features import features
from flowkit.quantise import Quantiser

CPU = Execution(device="cpu")


def with_networks(root: Path, **settings: Any) -> Path:
    """Give a data root random networks of all phases."""
    split = Dataset.open(root).split(1)
    told = {"quantiser": split.quantiser.to_dict(), "protocol": split.protocol, "digest": split.digest}
    for phase, checkpoint in random_checkpoints(split.classes, **told, **settings).items():
        save_weights(phase_folder(root, "default", 1, phase) / "weights.safetensors", checkpoint)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with random networks of all phases. Treat it as read-only."""
    return with_networks(example_root(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the last network at every frame, computed without an interruption."""
    path = tmp_path_factory.mktemp("whole") / "features.h5"
    features(home, frames="all", window=2, output=path, execution=CPU)
    return path


def test_logits_of_the_protocol_are_those_that_evaluate_averages(home: Path, tmp_path: Path) -> None:
    tested = evaluate(home, execution=CPU).splits[0]
    for phase in PHASES:
        report = features(home, of=phase, layer="logits", mirror=True, output=tmp_path / f"{phase}.h5", execution=CPU)
        averaged = features(home, of=phase, layer="logits", mirror=True, average=True, output=tmp_path / f"{phase}-mean.h5", execution=CPU)
        each, mean = FeatureFile(report.path), FeatureFile(averaged.path)
        for place, video_id in enumerate(tested.video_ids):
            one = each.read(video_id)
            for stream in STREAMS_OF[phase]:
                scores = tested.stream_scores[phase, stream][place]
                limit = 1e-5 * max(1, np.abs(scores).max())
                assert np.abs(one.arrays[stream].mean(0) - scores).max() < limit
                assert np.abs(mean.read(video_id).arrays[stream][0] - scores).max() < limit
            assert len(one.frames) == (11 if phase == "st-resnet-star" else 25)


def test_the_classifier_makes_the_logits_of_the_features(home: Path, tmp_path: Path) -> None:
    pooled, logits = (
        FeatureFile(features(home, of="st-resnet", layer=layer, output=tmp_path / f"{layer}.h5", execution=CPU).path)
        for layer in ("pool5", "logits")
    )
    network = load_network(phase_folder(home, "default", 1, "st-resnet"))
    for video_id in pooled.video_ids:
        for stream in ("appearance", "motion"):
            classifier = getattr(network, stream).fc
            made = pooled.read(video_id).arrays[stream] @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()
            given = logits.read(video_id).arrays[stream]
            assert np.abs(made - given).max() < 1e-5 * max(1, np.abs(given).max())


def test_every_frame_that_has_a_stack_has_features_and_a_stride_chooses_among_them(home: Path, tmp_path: Path) -> None:
    each = FeatureFile(features(home, of="motion", frames="all", window=3, output=tmp_path / "all.h5", execution=CPU).path)
    third = FeatureFile(features(home, of="motion", frames="all", stride=3, output=tmp_path / "third.h5", execution=CPU).path)
    for video_id in each.video_ids:
        one, other = each.read(video_id), third.read(video_id)
        assert one.frames.tolist() == list(range(5, one.num_frames - 5))
        assert other.frames.tolist() == one.frames[::3].tolist()
        # Another number of samples at once may be added up in another order, which is seen in the digits of the largest features.
        assert np.allclose(other.arrays["motion"], one.arrays["motion"][::3], rtol=1e-4, atol=1e-6 * np.abs(one.arrays["motion"]).max())
        assert one.times is not None
        assert np.allclose(one.times * 25, one.frames)


@pytest.mark.parametrize("stop_after", [1, 7, 20])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(home: Path, whole: Path, tmp_path: Path, stop_after: int) -> None:
    path, windows = tmp_path / "features.h5", iter(range(1000))
    report = features(home, frames="all", window=2, output=path, execution=CPU, should_stop=lambda: next(windows) + 1 == stop_after)
    assert report.stopped
    assert not path.exists()
    with FeatureJournal(journal_of(path), json.loads(journal_of(path).read_bytes().split(b"\n")[0])) as journal:
        assert len(journal) == stop_after
    report = features(home, frames="all", window=2, output=path, execution=CPU)
    assert (report.stopped, report.num_videos) == (False, 18)
    assert path.read_bytes() == whole.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.h5"]


@pytest.mark.parametrize("harm", ["cut", "flip", "foreign", "empty"])
def test_a_journal_that_a_crash_left_damaged_is_used_as_far_as_it_is_whole(home: Path, whole: Path, tmp_path: Path, harm: str) -> None:
    path, windows = tmp_path / "features.h5", iter(range(1000))
    features(home, frames="all", window=2, output=path, execution=CPU, should_stop=lambda: next(windows) == 12)
    journal = journal_of(path)
    data = bytearray(journal.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 4
    journal.write_bytes({"cut": data[:-5], "flip": data, "foreign": b'{"other": 1}\n' + data, "empty": b""}[harm])
    features(home, frames="all", window=2, output=path, execution=CPU)
    assert path.read_bytes() == whole.read_bytes()


def test_features_of_other_weights_settings_or_data_are_not_mixed(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    features(home, of="motion", output=path, execution=CPU)
    before = path.read_bytes()
    root = with_networks(Path(shutil.copytree(home, tmp_path / "root")), seed=5)
    for other, settings, different in (
        (root, {"of": "motion"}, "weights_sha256"),
        (home, {"of": "appearance"}, "of, streams, weights_sha256"),
        (home, {"of": "motion", "mirror": True}, "mirror"),
        (home, {"of": "motion", "layer": "logits"}, "layer, streams"),
    ):
        with pytest.raises(FeaturesError, match=f"features that differ in {different}; give another --output, or --replace"):
            features(other, output=path, execution=CPU, **settings)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert features(root, of="motion", output=path, replace=True, execution=CPU).num_kept == 0
    assert path.read_bytes() != before


def test_a_shard_is_never_replaced_by_features(home: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(home, tmp_path / "root"))
    shard = root / "shards/shard-00000.h5"
    before = shard.read_bytes()
    for replace in (False, True):
        with pytest.raises(FeaturesError, match=r"is no file of features .* name another file"):
            features(root, of="motion", output=shard, replace=replace, execution=CPU)
    assert shard.read_bytes() == before
    damaged = tmp_path / "features.h5"
    damaged.write_bytes(before[:100])
    features(root, of="motion", videos=[next(iter(Dataset.open(root).split(1))).video_id], output=damaged, replace=True, execution=CPU)
    assert not holds_other_data(damaged)


def test_features_of_another_data_root_are_refused(home: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(home, tmp_path / "other"))
    for path in (other / "shards").iterdir():
        with h5py.File(path, "r+") as file:  # other clips under the same names
            for group in file["videos"].values():
                group.attrs.modify("sha256", group.attrs["sha256"][::-1])
    path = tmp_path / "features.h5"
    features(home, of="motion", output=path, execution=CPU)
    before = path.read_bytes()
    with pytest.raises(FeaturesError, match=r"has features of other videos: none of them is a clip of .*other; give another --output"):
        features(other, of="motion", output=path, execution=CPU)
    assert path.read_bytes() == before
    assert features(other, of="motion", output=path, replace=True, execution=CPU).num_kept == 0


def test_videos_that_are_there_already_are_not_computed_again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "features.h5"
    ids = [record.video_id for record in read_split(home, 1).test]
    assert features(home, of="motion", videos=ids, output=path, execution=CPU).num_videos == 6
    report = features(home, of="motion", output=path, execution=CPU)
    assert (report.num_videos, report.num_kept) == (18, 6)
    straight = features(home, of="motion", output=tmp_path / "straight.h5", execution=CPU).path
    assert straight.read_bytes() == path.read_bytes()
    monkeypatch.setattr("flowkit.model.scoring.feature_network.FeatureNetwork.features", lambda *_: pytest.fail("nothing is computed"))
    assert features(home, of="motion", output=path, execution=CPU).num_kept == 18


def test_a_folder_has_one_file_for_each_video_and_stream(home: Path, tmp_path: Path) -> None:
    ended = run_flowkit("features", "--data", home, "--device", "cpu", "--of", "st-resnet", "--output", tmp_path / "vectors", "--json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["streams"] == {"appearance": 128, "motion": 128}
    stored = FeatureFile(features(home, of="st-resnet", output=tmp_path / "features.h5", execution=CPU).path)
    record = json.loads((tmp_path / "vectors" / "features.json").read_text(encoding="utf-8"))
    assert record["provenance"] == stored.provenance
    assert [video["video_id"] for video in record["videos"]] == list(stored.video_ids)
    for one in stored.read_all():
        for stream, array in one.arrays.items():
            assert np.array_equal(np.load(tmp_path / "vectors" / stream / f"{one.video_id}.npy"), array)
        assert np.array_equal(np.load(tmp_path / "vectors" / "frames" / f"{one.video_id}.npy"), one.frames)


def test_one_unreadable_video_is_named_and_the_others_have_features(home: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(home, tmp_path / "root"))
    shard = root / "shards" / "shard-00000.h5"
    with h5py.File(shard, "r+") as file:
        group = file["videos/000000"]
        damaged = group.attrs["video_id"].decode()
        group["frame_crc32"][...] = 0
    report = features(root, of="appearance", execution=CPU)
    assert [clip.video_id for clip in report.failed] == [damaged]
    assert report.num_videos == 17
    ended = run_flowkit("features", "--data", root, "--of", "appearance", "--device", "cpu")
    assert ended.code == 3
    assert f"no features: {damaged}: " in ended.err


def test_what_cannot_be_computed_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no video 'nothing'"):
        features(home, videos=["nothing"], execution=CPU)
    with pytest.raises(CheckpointError, match=r"run 'absent' of .* has no trained motion"):
        features(home, run="absent", of="motion", execution=CPU)
    with pytest.raises(CheckpointError, match="is motion, not appearance"):
        features(home, checkpoint=phase_folder(home, "default", 1, "motion"), of="appearance", execution=CPU)
    with pytest.raises(ParameterError, match="layer must be one of pool5, fc6, logits"):
        features(home, layer="fc7", execution=CPU)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="stride must be at least 1"):
        features(home, frames="all", stride=0, execution=CPU)
    other = example_root(tmp_path / "other", quantiser=Quantiser(6.0, "paper"))
    with pytest.raises(CheckpointError, match="was trained on flow with the quantiser"):
        features(other, checkpoint=phase_folder(home, "default", 1, "motion"), execution=CPU)
    ended = run_flowkit("features", "--data", home, "--stride", "2")
    assert ended.code == 2
    (tmp_path / "mine.h5").write_bytes(b"mine")
    assert "is damaged, or not an HDF5 file of features" in run_flowkit("features", "--data", home, "--output", tmp_path / "mine.h5").err
    assert (tmp_path / "mine.h5").read_bytes() == b"mine"


@pytest.mark.parametrize("harm", ["link", "size", "kind", "version", "nan", "rate", "streams"])
def test_foreign_files_are_refused(whole: Path, tmp_path: Path, harm: str) -> None:
    path = Path(shutil.copy(whole, tmp_path))
    with h5py.File(path, "r+") as file:
        group = file["videos/000000"]
        if harm == "link":
            del group["motion"]
            group["motion"] = h5py.ExternalLink("/etc/passwd", "/")
        elif harm == "size":
            del group["motion"]
            group.create_dataset("motion", (1 << 40, 128), np.float32, chunks=(1, 128))
        elif harm == "nan":
            group["motion"][0, 0] = np.nan
        elif harm == "rate":
            group.attrs["frame_rate"] = np.bytes_("1/0")
        elif harm == "streams":
            del file["provenance"]
            file["provenance"] = np.frombuffer(b'{"streams": []}', np.uint8)
        elif harm == "kind":
            file.attrs["format"] = np.bytes_("flowkit-shard")
        else:
            file.attrs["format_version"] = 2
    with pytest.raises(FeaturesError, match=str(path)):
        list(FeatureFile(path).read_all())


def test_a_journal_keeps_what_it_is_given(tmp_path: Path) -> None:
    name, arrays = WindowName(VideoToDo("a/b", "a", 20, "25/1", "00", ""), 3), {"motion": np.arange(6, dtype=np.float32).reshape(2, 3)}
    with FeatureJournal(tmp_path / "j", {"a": 1}) as journal:
        journal.add(name, arrays)
    with FeatureJournal(tmp_path / "j", {"a": 1}) as journal:
        assert name in journal
        assert np.array_equal(journal.read(name)["motion"], arrays["motion"])
    with FeatureJournal(tmp_path / "j", {"a": 2}) as journal:
        assert len(journal) == 0


def test_a_converted_or_copied_network_needs_no_run(home: Path, tmp_path: Path) -> None:
    shutil.copy(phase_folder(home, "default", 1, "motion") / "weights.safetensors", tmp_path / "mine.safetensors")
    code, out, _ = call_flowkit(
        "features", "--data", home, "--checkpoint", tmp_path / "mine.safetensors", "--device", "cpu", "--output", tmp_path / "f.h5"
    )
    assert code == 0
    assert "motion 128" in out
    assert FeatureFile(tmp_path / "f.h5").provenance["weights_sha256"] == load_checkpoint(tmp_path / "mine.safetensors").digest()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill")
def test_killed_at_ten_random_moments_and_run_again_the_file_is_the_same(home: Path, tmp_path: Path) -> None:
    def command(name: str) -> subprocess.Popen[bytes]:
        options = ["--frames", "all", "--window", "1", "--device", "cpu", "--output", str(tmp_path / name)]
        line = [sys.executable, "-m", "flowkit", "features", "--data", str(home), *options]
        return subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    assert command("whole.h5").wait(600) == 0
    draw, journal, kills = random.Random(1), journal_of(tmp_path / "killed.h5"), 0
    while kills < 10:
        child = command("killed.h5")
        size = journal.stat().st_size if journal.exists() else 0
        while child.poll() is None and (not journal.exists() or journal.stat().st_size == size):
            time.sleep(0.002)  # until the first window is kept, whatever the machine is busy with
        time.sleep(draw.uniform(0, 0.2))
        child.kill()
        kills += child.wait() != 0
        if (tmp_path / "killed.h5").exists():
            assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
            (tmp_path / "killed.h5").unlink()
    assert command("killed.h5").wait(600) == 0
    assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]


@pytest.mark.parametrize("name", ["features.h5", "folder"])
def test_what_a_killed_call_left_is_removed_and_no_more(home: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    features(home, of="motion", output=path, execution=CPU)
    files = {file for file in tmp_path.rglob("*") if file.is_file()}
    for file in files:
        (file.parent / temporary_name(file)).write_bytes(b"half")
        (file.parent / f"{file.name}.part").write_bytes(b"not flowkit's")
    (path / "features.json" if path.is_dir() else path).unlink()
    features(home, of="motion", output=path, execution=CPU)
    kept = files | {file.parent / f"{file.name}.part" for file in files}
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == kept


@pytest.mark.parametrize("name", ["features.h5", "folder"])
def test_features_that_were_not_asked_for_are_not_lost(home: Path, tmp_path: Path, name: str) -> None:
    path, first, second = tmp_path / name, *sorted(record.video_id for record in read_split(home, 1).test)[:2]
    for wanted in ([first], [second]):
        features(home, of="motion", videos=wanted, output=path, execution=CPU)
    stored = FeatureFile(path) if name.endswith(".h5") else FeatureFolder(path)
    whole = FeatureFile(features(home, of="motion", output=tmp_path / "whole.h5", execution=CPU).path)
    assert stored.video_ids == (first, second)
    for video_id in (first, second):
        assert np.array_equal(stored.read(video_id).arrays["motion"], whole.read(video_id).arrays["motion"])


def test_a_folder_is_continued_kept_and_replaced_as_a_file_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "vectors"
    features(home, of="motion", output=folder, execution=CPU)
    with pytest.raises(FeaturesError, match="features that differ in of, streams, weights_sha256; give another --output, or --replace"):
        features(home, of="appearance", output=folder, execution=CPU)
    one = FeatureFolder(folder).video_ids[0]
    (folder / "mine.txt").write_text("mine")
    features(home, of="appearance", videos=[one], output=folder, replace=True, execution=CPU)
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert left == sorted([f"appearance/{one}.npy", f"frames/{one}.npy", f"times/{one}.npy", "features.json", "mine.txt"])
    features(home, of="appearance", output=folder, execution=CPU)
    monkeypatch.setattr("flowkit.model.scoring.feature_network.FeatureNetwork.features", lambda *_: pytest.fail("nothing is computed"))
    before = (folder / "features.json").stat().st_mtime_ns
    assert features(home, of="appearance", output=folder, execution=CPU).num_kept == 18
    assert (folder / "features.json").stat().st_mtime_ns == before


def test_a_clip_file_that_cannot_be_opened_is_named_and_the_others_have_features(home: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(home, tmp_path / "root"))
    clip = root / "clips" / "late" / "video.h5"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"cut off")
    report = features(root, of="motion", execution=CPU)
    assert [video.video_id for video in report.failed] == ["late/video"]
    assert report.num_videos == 18


def test_videos_are_read_by_other_processes_too(home: Path, tmp_path: Path) -> None:
    alone, shared = (
        features(home, of="motion", output=tmp_path / f"{workers}.h5", execution=Execution(device="cpu", num_workers=workers)).path
        for workers in (0, 2)
    )
    assert alone.read_bytes() == shared.read_bytes()


@pytest.mark.parametrize("settings", [{"of": "motion", "mirror": True}, {"of": "st-resnet-star", "average": True}])
def test_videos_that_pass_through_the_network_together_have_the_features_that_each_has_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    root = Path(shutil.copytree(home, tmp_path / "root"))
    with h5py.File(root / "shards" / "shard-00000.h5", "r+") as file:
        file["videos/000001/frame_crc32"][...] = 0  # one in the middle of a group cannot be read
    alone = FeatureFile(features(root, output=tmp_path / "alone.h5", execution=CPU, **settings).path)
    monkeypatch.setitem(VIDEOS_AT_ONCE, "cpu", 4)
    sizes = []
    inputs_of = ClipInputs.of

    def counted(self: ClipInputs, clips: Any, *, mirror: bool) -> Any:
        sizes.append(len(clips))
        return inputs_of(self, clips, mirror=mirror)

    monkeypatch.setattr(ClipInputs, "of", counted)
    together = FeatureFile(features(root, output=tmp_path / "together.h5", execution=CPU, **settings).path)
    assert sorted(sizes) == [2, 3, 4, 4, 4]
    assert together.video_ids == alone.video_ids
    for one, other in zip(together.read_all(), alone.read_all(), strict=True):
        for stream, values in one.arrays.items():
            assert np.abs(values - other.arrays[stream]).max() <= 1e-5 * np.abs(values).max()
    asked = iter(range(100))
    path = tmp_path / "stopped.h5"
    assert features(root, output=path, execution=CPU, should_stop=lambda: next(asked) == 1, **settings).stopped
    record = journal_of(path).read_bytes()
    journal_of(path).write_bytes(record[:-100])  # killed within a group
    assert features(root, output=path, execution=CPU, **settings).num_videos == 17
    assert path.read_bytes() == together.path.read_bytes()


@pytest.mark.parametrize("harm", ["record", "outside", "missing", "pickle", "streams"])
def test_foreign_folders_are_refused(home: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "vectors"
    one = read_split(home, 1).test[0].video_id
    features(home, of="motion", videos=[one], output=folder, execution=CPU)
    record = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    if harm == "missing":
        (folder / "motion" / f"{one}.npy").unlink()
    elif harm == "pickle":
        np.save(folder / "motion" / f"{one}.npy", np.array([{}], dtype=object), allow_pickle=True)
    elif harm == "outside":
        record["videos"][0]["video_id"] = "../../outside"
    elif harm == "streams":
        record["provenance"]["streams"] = {"motion": "128"}
    else:
        del record["videos"][0]["sha256"]
    (folder / "features.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(FeaturesError, match="vectors"):
        FeatureFolder(folder).read(one)


def test_a_hostile_journal_ends_where_it_makes_no_sense(tmp_path: Path) -> None:
    from zlib import crc32

    for record in (b"", b"12345678", b"\xff" * 40, (2).to_bytes(8, "little") + b"{}", (60).to_bytes(8, "little") + b"[" * 60):
        header = b'{"a":1}\n'
        (tmp_path / "j").write_bytes(header + len(record).to_bytes(8, "little") + crc32(record).to_bytes(4, "little") + record)
        with FeatureJournal(tmp_path / "j", {"a": 1}) as journal:
            assert len(journal) == 0
        assert (tmp_path / "j").read_bytes() == header
