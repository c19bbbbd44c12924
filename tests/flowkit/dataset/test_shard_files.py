"""Shards that are missing, truncated or foreign are found before any work, by one function, with the command that makes them again."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_lines import run_flowkit
from small_videos import write_video
from training_runs import run

from flowkit.dataset.clips import find_clips
from flowkit.dataset.example import example_root
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import Codec, ExtractSettings
from flowkit.dataset.shard_files import check_readable, check_shards, extract_command
from flowkit.errors import ManifestError
from flowkit.files import file_sha256
from flowkit.flow.params import TVL1Params
from flowkit.model.ablation.run import ablate
from flowkit.model.ablation.variants import Variant
from flowkit.model.compute.execution import Execution
from flowkit.model.settings.recipes import TrainSettings
from flowkit.quantise import Quantiser

pytestmark = pytest.mark.usefixtures("kept_workers")


@pytest.fixture
def own_root(packed_root: Path, tmp_path: Path) -> Path:
    """A data root whose shards a test may spoil."""
    for name in ("shards", "splits"):
        shutil.copytree(packed_root / name, tmp_path / name)
    shutil.copy(packed_root / "dataset.json", tmp_path)
    return tmp_path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_tables(path: Path) -> None:
    """Overwrite everything but the superblock, as where a copy reserves the space first."""
    path.write_bytes(path.read_bytes()[:48] + bytes(path.stat().st_size - 48))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "is missing"),
    "truncated": (cut, r"is truncated: it has \d+ of \d+ bytes"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "reserved": (spoil_tables, "is damaged or not a flowkit shard"),
    "a folder": (make_folder, "cannot be opened|not a regular file"),
    "foreign": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 5), "signature of HDF5"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_shard_that_cannot_be_read_is_named_with_the_command_that_makes_it_again(own_root: Path, kind: str) -> None:
    spoil, words = FAULTS[kind]
    dataset = Dataset.open(own_root)
    check_shards(dataset, dataset.split(1))
    spoil(own_root / "shards" / "shard-00001.h5")
    with pytest.raises(ManifestError, match=f"needs 2 shards, and 1 of them cannot be read: shard-00001.h5 .*({words})") as caught:
        check_shards(dataset, dataset.split(1))
    message = str(caught.value)
    assert "Mount or copy" in message
    assert "flowkit extract" in message
    assert (f"rm {own_root}" in message) == (kind != "missing")
    assert "flowkit pack --split 1" in message
    assert len(message.splitlines()) == 1


def test_many_missing_shards_are_one_line(own_root: Path) -> None:
    dataset = Dataset.open(own_root)
    split = dataset.split(1)
    many = replace(split, train=tuple(replace(record, shard=f"shard-{k:05d}.h5") for k, record in enumerate(split.train, start=10)))
    with pytest.raises(ManifestError, match=r"and 12 of them cannot be read: shard-00010.h5 is missing; .*; and 9 more\. "):
        check_shards(dataset, many)


def test_only_the_shards_of_the_given_videos_matter(own_root: Path) -> None:
    (own_root / "shards" / "shard-00001.h5").unlink()
    dataset = Dataset.open(own_root)
    check_shards(dataset, dataset.split(1), records=[record for record in dataset.split(1) if record.shard == "shard-00000.h5"])


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_train_evaluate_and_ablate_find_it_alike_before_any_work(undisturbed: tuple[Path, list[Any]], own_root: Path, kind: str) -> None:
    shutil.copytree(undisturbed[0] / "runs", own_root / "runs")
    FAULTS[kind][0](own_root / "shards" / "shard-00001.h5")
    messages = []
    for arguments in (["train", "--run", "new"], ["evaluate"], ["ablate", "stages", "--run", "new"]):
        ended = run_flowkit(arguments[0], "--data", own_root, "--device", "cpu", *arguments[1:])
        assert ended.code == 1
        messages.append(ended.err.strip().splitlines()[-1])
    assert len(set(messages)) == 1
    assert "shard-00001.h5 is" in messages[0]
    assert sorted(path.name for path in (own_root / "runs").iterdir()) == ["default"]
    assert not (own_root / "reports").exists()
    with pytest.raises(ManifestError, match="cannot be read"):
        run(own_root, run="new")
    with pytest.raises(ManifestError, match="cannot be read"):
        ablate(own_root, [Variant("x", {"injection": "none"})], TrainSettings("small"), run="new", execution=Execution(device="cpu"))


def test_the_command_has_the_settings_of_the_root() -> None:
    settings = ExtractSettings(
        preset="paper",
        tvl1=replace(TVL1Params.preset("paper"), num_warps=7, lambda_=0.2),
        quantiser=Quantiser(15.5, "paper"),
        short_side=128,
        codec="gzip",
    )
    assert extract_command(Dataset(Path("my data"), "/my videos", settings, {})) == (
        "flowkit extract '/my videos' --preset paper --short-side 128 --codec gzip --bound 15.5 --mapping paper --tvl1-lambda 0.2 "
        "--tvl1-num-warps 7 --data 'my data'"
    )
    assert extract_command(Dataset(Path("d"), "v", ExtractSettings(), {})) == "flowkit extract v --data d"


@pytest.mark.parametrize(("codec", "option"), [("jpeg", ""), ("zstd", ""), ("gzip", "--codec gzip "), ("none", "--codec none ")])
def test_the_command_that_imports_again_has_the_settings_of_the_root(codec: Codec, option: str) -> None:
    settings = ExtractSettings(preset="imported", solver="denseflow", quantiser=Quantiser(32, "paper"), short_side=0, codec=codec)
    command = extract_command(Dataset(Path("d"), "tree", settings, {}))
    assert command == f"flowkit import tree --tool denseflow --bound 32.0 {option}--data d"


@pytest.mark.parametrize(
    ("moved", "kind"),
    [
        (True, "truncated"),
        pytest.param(True, "missing", marks=pytest.mark.slow),
        pytest.param(False, "truncated", marks=pytest.mark.slow),
        pytest.param(False, "missing", marks=pytest.mark.slow),
    ],
)
def test_the_command_that_is_named_makes_the_same_shard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool, kind: str
) -> None:
    videos, root = tmp_path / "videos", tmp_path / "data"
    monkeypatch.setenv("FLOWKIT_JOBS", "1")
    for number in range(4):
        write_video(videos / f"class{number % 2}" / f"v_{number}_g0{number}_c01.mkv", 12, seed=number)
    assert run_flowkit("extract", videos, "--data", root, "--short-side", 32).code == 0
    assert run_flowkit("pack", "--data", root, "--shard-size", "20kB", *(["--move"] if moved else [])).code == 0
    shard = root / "shards" / "shard-00001.h5"
    whole = file_sha256(shard)
    FAULTS[kind][0](shard)
    dataset = Dataset.open(root)
    with pytest.raises(ManifestError) as caught:
        check_shards(dataset, dataset.split(1))
    (text,) = re.findall("`(.*)`", str(caught.value))
    for command in text.split(" && "):
        name, *arguments = shlex.split(command)
        if name == "rm":
            for path in arguments:
                Path(path).unlink()
        else:
            assert run_flowkit(*arguments).code == 0
    assert file_sha256(shard) == whole
    check_shards(dataset, dataset.split(1))


READERS = (
    ["stats"],
    ["inspect", "--gallery", "--output", "OUT"],
    ["export", "--layout", "rawframes", "--output", "OUT"],
    ["export", "--layout", "webdataset", "--output", "OUT"],
)


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_export_stats_and_inspect_find_it_before_any_work(own_root: Path, tmp_path: Path, kind: str) -> None:
    (lost, *_) = [record.video_id for record in Dataset.open(own_root).split(1) if record.shard == "shard-00001.h5"]
    (other, *_) = [record.video_id for record in Dataset.open(own_root).split(1) if record.shard == "shard-00000.h5"]
    FAULTS[kind][0](own_root / "shards" / "shard-00001.h5")
    output = tmp_path / "out"
    for arguments in (*READERS, *([*reader, "--split", "1"] for reader in READERS), ["inspect", lost]):
        ended = run_flowkit(*(str(output) if word == "OUT" else word for word in arguments), "--data", own_root)
        assert (ended.code, ended.out) == (1, ""), arguments
        (line,) = [line for line in ended.err.splitlines() if not line.startswith("not readable")]
        assert f"split 1 needs 1 shard, which cannot be read: shard-00001.h5 is {kind}" in line
        assert "flowkit extract" in line
        assert not output.exists()
    assert run_flowkit("inspect", other, "--data", own_root, "--output", output, "--animation", "none").code == 0


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_clip_files_stand_in_for_a_shard(own_root: Path, tmp_path: Path, kind: str) -> None:
    example = example_root()
    shutil.copytree(example / "clips", own_root / "clips")
    FAULTS[kind][0](own_root / "shards" / "shard-00001.h5")
    for arguments in (["stats", "--split", "1"], ["export", "--split", "1", "--layout", "rawframes", "--output", str(tmp_path / "out")]):
        ended = run_flowkit(*arguments, "--data", own_root)
        assert ended.code in (0, 3)  # 3: the shard is named
        assert "needs" not in ended.err
    assert len(list((tmp_path / "out").rglob("img_00001.jpg"))) == 18


def test_an_unreadable_shard_that_no_split_names_is_found_too(own_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_root / "splits")
    shard = own_root / "shards" / "shard-00001.h5"
    cut(shard)
    for arguments in (["stats"], ["export", "--layout", "rawframes", "--output", str(tmp_path / "out")]):
        ended = run_flowkit(*arguments, "--data", own_root)
        assert ended.code == 1
        assert f"1 shard of '{own_root}' cannot be read: shard-00001.h5 is truncated" in ended.err
        assert f"`rm {shard} && flowkit extract" in ended.err
    assert not (tmp_path / "out").exists()


def test_the_command_that_makes_an_unreadable_shard_again_keeps_the_lists_of_a_split(own_root: Path) -> None:
    split = Dataset.open(own_root).split(1)
    halves = {"train": split.train, "test": split.test}
    rows = [f"{record.video_id},{record.class_name},{subset}" for subset, half in halves.items() for record in half]
    lists = own_root / "split.csv"
    lists.write_text("\n".join(["video_id,class_name,subset", *rows]))
    assert run_flowkit("pack", "--data", own_root, "--lists", lists).code == 0
    (shard,) = (own_root / "shards").glob("*.h5")
    cut(shard)
    with pytest.raises(ManifestError, match=f"flowkit pack --split 1 --lists LISTS --data {own_root}`"):
        check_readable(Dataset.open(own_root), find_clips(own_root))
