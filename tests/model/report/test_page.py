"""The report: its numbers are those of results.json, its page needs nothing from outside, and no name gets a tag of its own."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
from hostile_results import CLASSES, FAILED, make_evaluation, make_gallery, make_hostile_root, make_result, make_row
from phases import HEADS, ROWS
from PIL import Image

from flowkit.dataset.csv_fields import original_field
from flowkit.describe.html_page import visible
from flowkit.model.evaluation.results import write_results
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.evaluation.rows import last_row
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.report import page as page_module
from flowkit.model.report import video_table
from flowkit.model.report.gallery_links import GalleryLinks, find_gallery
from flowkit.model.report.page import discard_report, write_report
from flowkit.model.scoring.metrics import softmax

if TYPE_CHECKING:
    from flowkit.dataset.root import Dataset

VOID = {"meta", "link", "img", "br", "wbr", "input"}
EMPTY = {
    "iframe",
    "object",
    "embed",
    "form",
    "base",
    "video",
    "audio",
    "source",
    "svg",
}  # none of these at all


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, its text by section, the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = self.style = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags are closed in order"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        if "script" in self.open:
            self.scripts.append(data)
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_hostile_root(tmp_path_factory.mktemp("hostile") / "root <&'")


@pytest.fixture(scope="module")
def folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of one split, beside its numbers."""
    path = tmp_path_factory.mktemp("report")
    result = make_result(dataset)
    evaluation = make_evaluation(result)
    write_results(path, result, evaluation, table="")
    written = write_report(path, result, evaluation, dataset, run="default")
    assert [file.name for file in written] == ["curves.png", "confusion.png", "report.html"]
    return path


@pytest.fixture(scope="module")
def page(folder: Any) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def lean(result: Any, *rows: str) -> Any:
    """The same results without curves and without rows that a test does not look at, which take time to draw."""
    return replace(result, rows={name: result.rows[name] for name in rows}, checkpoints={}, provenances={})


def report_of(result: Any, folder: Path, dataset: Dataset, *others: Any) -> Page:
    write_report(folder, result, make_evaluation(result, *others), dataset, run="default")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# -- a page that needs nothing and runs nothing ------------------------------------------------------------------------------------


def test_the_page_names_nothing_outside_itself(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & EMPTY
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("srcset", "action", "background", "ping")}
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/")
        if "href" in attributes:
            assert attributes["href"] == "data:," or attributes["href"].removeprefix("#") in ids
        assert re.fullmatch(r"(?:(?:left|width|min-width):[\d.]+(?:%|px);?)*", attributes.get("style", ""))
    assert not re.search(r"url\(|@import|expression", page.style)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("script-src").startswith("'sha256-")
    assert rules == dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'") | {
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
    }


def test_every_picture_is_whole_has_its_size_and_says_what_it_shows(page: Page) -> None:
    images = page.all("img")
    assert len(images) > 20
    for image in images:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"]).groups()
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            picture.load()
            assert picture.format == kind.upper()
            assert picture.width / picture.height == pytest.approx(int(image["width"]) / int(image["height"]), rel=0.02)
        assert len(image["alt"]) > 10


def test_hostile_names_are_text_and_nothing_else(folder: Any, page: Page) -> None:
    source = (folder / "report.html").read_text(encoding="utf-8")
    record, script = page.scripts
    assert [attributes.get("type") for attributes in page.all("script")] == ["application/json", None]
    assert script == (Path(page_module.__file__).with_name("page.js")).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source
    assert source.count("<script") == 2
    assert not set("<>&") & set(record)
    assert json.loads(record)["classes"] == [visible(name) for name in CLASSES]
    assert "onerror=alert(2)>" not in source
    assert "<b>damaged" not in source
    assert "49" not in "".join(cell for table in page.tables for row in table for cell in row if "7 * 7" in cell)
    for name in (*CLASSES, FAILED, "<b>lists</b>", "<u>tau", "<s>numpy"):
        assert visible(name) in page.text
    assert "two\\nlines\\u202ereversed" in page.text  # not the characters themselves, which would hide what stands there
    assert "\u202e" not in source


def test_headings_come_in_order_and_links_reach_their_sections(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]
    assert {attributes.get("scope") for attributes in page.all("th")} <= {"col", "row"}
    assert all(box["role"] == "region" and box["tabindex"] == "0" for box in page.all("div") if box.get("class") == "scroll")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ä 跳", "plain ä 跳"), ("a\nb", "a\\nb"), ("\u202e", "\\u202e"), ("\ud800", "\\ud800"), ("\x1b[31m", "\\x1b[31m"), (7, 7)],
)
def test_what_cannot_be_seen_is_written_out(text: object, shown: object) -> None:
    assert visible(text) == shown


# -- the numbers -------------------------------------------------------------------------------------------------------------------


def test_the_table_says_what_results_json_says(folder: Any, page: Page) -> None:
    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    header, *rows = page.tables[0]
    assert header[:6] == ["row", "top-1", "95 % interval", "correct", "class mean", "top-5"]
    assert [row[0] for row in rows] == [*ROWS, *HEADS] == [*stored["rows"], *stored["heads"]]
    for row, told in zip(rows, [*stored["rows"].values(), *stored["heads"].values()], strict=True):
        least, most = told["top1_interval_95"]
        correct = f"{told['num_correct']}/{told['num_videos']}"
        assert row[1:4] == [f"{100 * told['top1']:.2f}", f"{100 * least:.2f} to {100 * most:.2f}", correct]
        assert row[4:6] == [f"{100 * told['mean_class_accuracy']:.2f}", f"{100 * told['top5']:.2f}"]
    (pairs,) = [table for table in page.tables if table[0][:2] == ["row", "other row"]]
    assert [row[:4] for row in pairs[1:]] == [
        [*pair["rows"], str(pair["only_first"]), str(pair["only_second"])] for pair in stored["comparisons"]
    ]
    assert f"{stored['num_scored']} of {stored['num_listed']} listed test videos scored" in page.text
    assert all(line in page.text for line in stored["protocol"])


def test_classes_are_counted_from_the_confusion_matrix_worst_first(folder: Any, page: Page) -> None:
    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (table,) = [table for table in page.tables if table[0][:2] == ["class", "videos"]]
    assert table[0][2:] == ["ST-ResNet*", "appearance", "motion", "two-streams", "ST-ResNet"]
    confusion = {name: np.array(row["confusion"]) for name, row in stored["rows"].items()}
    labels = {visible(name): label for label, name in enumerate(stored["classes"])}
    shares = []
    for name, num, bar, *others in table[1:]:
        label = labels[name]
        total = confusion["motion"][label].sum()
        assert int(num) == total
        percent = {row: f"{100 * counts[label, label] / total:.0f}" for row, counts in confusion.items()}
        assert bar.split() == [percent["ST-ResNet*"], "%", f"({confusion['ST-ResNet*'][label, label]}/{total})"]
        assert others == [percent[row] for row in table[0][3:]]
        shares.append(confusion["ST-ResNet*"][label, label] / total)
    assert shares == sorted(shares)


def test_what_one_must_know_is_said_before_the_numbers(page: Page) -> None:
    before = page.text[: page.text.index("Protocol")]
    assert "may be wrong" in before
    assert "weights <i>elsewhere</i>: digest was 00, is 11" in before
    assert "could not be scored and are left out (1):" in before
    assert "3 of the 17 listed test videos are not in the data" in before
    assert "that have test videos but no training video, so that these cannot be classified correctly (2):" in before
    assert "neither a goal nor an upper limit" in before


def test_settings_of_data_networks_and_software_are_told(page: Page, dataset: Dataset) -> None:
    cells = {row[0]: row[1:] for table in page.tables for row in table}
    assert cells["phase"] == ["appearance", "motion", "st-resnet", "st-resnet-star"]
    assert cells["network.base_width"] == ["16"] * 4
    configs = [made.config for made in make_result(dataset).provenances.values()]
    assert cells["parameters"] == [f"{sum(tensor.numel() for tensor in build_network(config).parameters()):,}" for config in configs]
    assert cells["learning rate"][0].startswith("cosine from 0.05 to 0, after a warm-up of 20")
    assert cells["kept in"][0] == "runs/default/split1/appearance"
    assert cells["digest of the split"] == [dataset.split(1).digest]
    assert cells["TV-L1"] == ["<u>tau 0.25"]
    assert cells["frame size"] == ["32 x 24 px"]
    assert cells["solver"] == ["strict"]
    assert cells["num threads"] == ["2"]
    assert {"numpy", "torch", "python"} <= cells.keys()
    assert str(dataset.root) not in page.text  # nothing of the machine's folders


# -- confused videos ---------------------------------------------------------------------------------------------------------------


def test_confused_videos_are_shown_with_what_was_predicted_and_its_scores(dataset: Dataset, tmp_path: Path) -> None:
    result = make_result(dataset)
    scores = np.eye(len(CLASSES))[result.labels] * 5
    scores[3] = [0, 0, 1, 0, 4, 3, 2]  # one video is wrong
    label = int(result.labels[3])
    assert label != 4
    page = report_of(make_row(lean(result, "ST-ResNet*"), "ST-ResNet*", scores), tmp_path, dataset)
    (table,) = [table for table in page.tables if table[0] == ["rank", "class", "score", "share"]]
    powers = np.exp(scores[3])
    for rank, row in enumerate(table[1:]):
        predicted = int(np.argsort(-scores[3], kind="stable")[rank])
        assert row[0] == str(rank + 1)
        assert row[1].startswith(str(visible(CLASSES[predicted])))
        assert row[1].endswith(" (correct)") == (predicted == label)
        assert row[2:] == [f"{scores[3, predicted]:.2f}", f"{100 * powers[predicted] / powers.sum():.1f} %"]
    assert "1 of its 1 mistakes" in page.text
    assert f"1 of 2 videos of {visible(CLASSES[label])} were classified as {CLASSES[4]}, and 0 of 2 the reverse." in page.text


def test_a_row_without_mistakes_and_a_test_without_videos_are_told_so(dataset: Dataset, tmp_path: Path) -> None:
    result = lean(make_result(dataset), "ST-ResNet*")
    perfect = make_row(result, "ST-ResNet*", np.eye(len(CLASSES))[result.labels])
    page = report_of(perfect, tmp_path, dataset)
    assert "ST-ResNet* classified every video correctly" in page.text
    assert "There are no curves" in page.text
    assert not (tmp_path / "curves.png").exists()

    no_scores = {part: scores[:0] for part, scores in result.stream_scores.items()}
    empty = replace(result, video_ids=(), labels=result.labels[:0], stream_scores=no_scores)
    empty = make_row(empty, "ST-ResNet*", np.zeros((0, len(CLASSES))))
    assert report_of(empty, tmp_path, dataset).text.count("No video was scored.") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]  # nor is there what the earlier report had


def test_a_damaged_shard_costs_its_pictures_and_nothing_else(tmp_path: Path) -> None:
    dataset = make_hostile_root(tmp_path / "root")
    result = lean(make_result(dataset), "ST-ResNet*")
    shard = tmp_path / "root" / "shards" / "shard-00000.h5"
    whole = shard.read_bytes()
    for damaged in (whole[:100], whole[: len(whole) // 2] + bytes(len(whole) // 2), None):
        shard.unlink() if damaged is None else shard.write_bytes(damaged)
        page = report_of(result, tmp_path / "out", dataset)
        assert "No pictures: " in page.text
        assert [row[0] for row in page.tables[0][1:]] == [*ROWS, *HEADS]


def test_a_report_drawn_after_the_split_was_packed_again_says_so(tmp_path: Path) -> None:
    dataset = make_hostile_root(tmp_path / "root")
    result = make_result(dataset)
    kept = replace(lean(result, "ST-ResNet*"), provenances=result.provenances, checkpoints=result.checkpoints, warnings=())
    old = tuple(f"gone/{number}" for number in range(len(result.video_ids)))
    other = {phase: replace(made, digest="00" * 32) for phase, made in result.provenances.items()}
    shutil.rmtree(tmp_path / "root" / "runs")  # and there are no curves any more
    page = report_of(replace(kept, video_ids=old, provenances=other), tmp_path / "out", dataset)
    assert "changed since this test" in page.text
    assert "it is no longer in the split" in page.text


# -- the table of videos -----------------------------------------------------------------------------------------------------------


def predictions(result: Any, folder: Path) -> list[dict[str, str]]:
    """The lines of per_video.csv, with ids and names as they were."""
    with (folder / "per_video.csv").open(newline="", encoding="utf-8") as file:
        return [{name: original_field(field) for name, field in line.items()} for line in csv.DictReader(file)]


def test_per_video_csv_has_what_every_row_and_head_predicts(folder: Any, dataset: Dataset) -> None:
    result = make_result(dataset)
    lines = predictions(result, folder)
    assert [line["video_id"] for line in lines] == list(result.video_ids)
    assert [line["class_name"] for line in lines] == [CLASSES[label] for label in result.labels]
    for name, row in (result.rows | result.heads).items():
        assert [line[f"{name}: predicted"] for line in lines] == [CLASSES[label] for label in row.scores.argmax(1)]
        assert [int(line[f"{name}: rank"]) for line in lines] == (row.ranks + 1).tolist()
        assert [float(line[f"{name}: share"]) for line in lines] == pytest.approx(softmax(row.scores).max(1), abs=6e-5)
    assert len(lines[0]) == 2 + 3 * len(result.rows | result.heads)


def test_the_table_of_videos_has_each_prediction_and_the_surest_mistakes_first(page: Page, dataset: Dataset) -> None:
    result = make_result(dataset)
    (table,) = [table for table in page.tables if table[0][:2] == ["video", "class"]]
    names = ["ST-ResNet*", "appearance", "motion", "two-streams", "ST-ResNet"]
    assert table[0][2:] == names
    place = {visible(video_id): k for k, video_id in enumerate(result.video_ids)}
    order = [place[row[0]] for row in table[1:]]
    assert sorted(order) == list(range(len(result.video_ids)))
    for k, row in zip(order, table[1:], strict=True):
        assert row[1] == visible(CLASSES[result.labels[k]])
        for name, cell in zip(names, row[2:], strict=True):
            scores = result.rows[name].scores[k]
            is_correct = scores.argmax() == result.labels[k]
            told = "✓ correct" if is_correct else f"✗ {visible(CLASSES[scores.argmax()])}"
            assert cell == f"{told} {100 * softmax(scores).max():.1f} %"
    main = result.rows["ST-ResNet*"]
    wrong, share = main.ranks > 0, softmax(main.scores).max(1)
    keys = [(not wrong[k], -share[k] if wrong[k] else share[k]) for k in order]
    assert keys == sorted(keys)
    record = json.loads(page.scripts[0])
    assert [video[:2] for video in record["videos"]] == [[visible(result.video_ids[k]), result.labels[k]] for k in order]
    assert [record["raw"][str(place)] for place in range(len(order))] == [result.video_ids[k] for k in order], "all have a line feed"
    for video, k in zip(record["videos"], order, strict=True):
        assert video[2::2] == [result.rows[name].scores[k].argmax() for name in names]
        assert video[3::2] == pytest.approx([1000 * softmax(result.rows[name].scores[k]).max() for name in names], abs=0.51)


def test_only_the_first_of_many_videos_are_html_and_the_page_says_so(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_table, "NUM_AT_ONCE", 5)
    page = report_of(lean(make_result(dataset), "motion"), tmp_path, dataset)
    (table,) = [table for table in page.tables if table[0][:2] == ["video", "class"]]
    assert len(table) == 1 + 5
    assert "The first 5 of 13 videos." in page.text
    assert len(json.loads(page.scripts[0])["videos"]) == 13


@pytest.mark.parametrize(
    ("report", "gallery", "address"),
    [
        ("root/reports/default/split1", "root/reports/gallery", "../../gallery/index.html"),
        ("root/reports/a b/split2", "root/reports/gallery", "../../gallery/index.html"),
        ("out of it", "root/reports/gallery", "../root/reports/gallery/index.html"),
        ("my reports/default/split1", "my reports/gallery", "../../gallery/index.html"),
        ("over/there/x", "ro%ot#/reports/gallery", "../../../ro%25ot%23/reports/gallery/index.html"),
        ("root/reports/default/split1", None, ""),
    ],
)
def test_the_gallery_is_found_from_wherever_the_report_lies(tmp_path: Path, report: str, gallery: str | None, address: str) -> None:
    if gallery:
        make_gallery(tmp_path / gallery, ["run/a"])
    root = tmp_path / ("ro%ot#" if gallery and "%" in gallery else "root")
    links = find_gallery(tmp_path / report, root)
    assert links.page == address
    assert links.of("run/a") == (address and f"{address}#video=run%2Fa")
    assert links.of("run/b") == ""


@pytest.mark.parametrize("record", [b"", b"{}", b'{"format": "flowkit-gallery", "format_version": 1, "pictures": 7}', None])
def test_a_folder_that_is_no_gallery_gets_no_links(tmp_path: Path, record: bytes | None) -> None:
    folder = tmp_path / "reports" / "gallery"
    folder.mkdir(parents=True)
    (folder / "index.html").touch()
    if record is not None:
        (folder / "gallery.json").write_bytes(record)
    assert find_gallery(tmp_path / "reports" / "default" / "split1", tmp_path) == GalleryLinks()


def test_ids_of_the_videos_in_the_gallery_lead_there(dataset: Dataset, tmp_path: Path) -> None:
    result = lean(make_result(dataset), "motion")
    assert not any("#video=" in link["href"] for link in report_of(result, tmp_path, dataset).all("a"))
    shown = result.video_ids[::2]
    make_gallery(dataset.root / "reports" / "gallery", shown)
    try:
        page = report_of(result, dataset.root / "reports" / "default" / "split1", dataset)
    finally:
        shutil.rmtree(dataset.root / "reports")
    links = {link["href"] for link in page.all("a") if not link["href"].startswith("#")}
    assert {link.partition("#")[0] for link in links} == {"../../gallery/index.html"}
    assert {unquote(link.partition("#video=")[2]) for link in links} == set(shown)
    assert all(re.fullmatch(r"[\w.!~*'()%-]+", link.partition("#video=")[2], re.ASCII) for link in links)
    record = json.loads(page.scripts[0])
    assert record["gallery"] == "../../gallery/index.html"
    assert {record["videos"][place][0] for place in record["linked"]} == {visible(video_id) for video_id in shown}
    assert "7 of the ids lead to the video in the gallery" in page.text


# -- several splits ----------------------------------------------------------------------------------------------------------------


def test_each_split_has_its_own_report_and_the_mean_over_all(dataset: Dataset, tmp_path: Path) -> None:
    one, two = (lean(make_result(dataset, number, seed=number), "appearance", "motion") for number in (1, 2))
    for result, other in ((one, two), (two, one)):
        page = report_of(result, tmp_path / str(result.split), dataset, other)
        assert page.tables[0][1][1] == f"{100 * result.rows['appearance'].top1:.2f}"
        assert page.tables[2][0] == ["top-1 %", f"split {result.split}", f"split {other.split}", "mean"]
        for row in page.tables[2][1:3]:
            first, second = result.rows[row[0]].top1, other.rows[row[0]].top1
            assert row[1:] == [f"{100 * value:.2f}" for value in (first, second, (first + second) / 2)]
        assert page.tables[2][3] == ["two-streams", "-", "-", "-"]


def test_the_page_says_when_how_and_where_and_hides_the_folders_of_the_machine(dataset: Dataset, tmp_path: Path) -> None:
    result = replace(lean(make_result(dataset), "motion"), started="2026-01-02T03:04:05+00:00", seconds=61.25, majority_label=2)
    command = "flowkit evaluate --data '/home/<i>me</i>/my data' --reports=/srv/secret/out --split 1"
    evaluation = replace(make_evaluation(result), command=command, environment={"cpu": "<b>Fast 9000", "num_cores": 3})
    write_report(tmp_path, result, evaluation, dataset, run="default")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    facts = {row[0]: row[1] for table in page.tables for row in table if len(row) == 2}
    assert facts["began (UTC)"] == "2026-01-02 03:04:05"
    assert facts["duration"] == "1 min 01 s"
    assert "Tested on 2026-01-02 at 03:04 UTC in 1 min 01 s on <b>Fast 9000." in page.text
    assert facts["command"] == "flowkit evaluate --data 'my data' --reports=out --split 1"
    assert (facts["cpu"], facts["num cores"]) == ("<b>Fast 9000", "3")
    share = 100 * np.mean(result.labels == 2)
    assert f"Always naming {CLASSES[2]}, the most frequent class of the training list, would classify {share:.2f} %" in page.text


def test_top_5_is_left_out_where_it_says_nothing(dataset: Dataset, tmp_path: Path) -> None:
    result = lean(make_result(dataset), "motion")
    scores, labels = result.rows["motion"].scores[:, :5], result.labels % 5
    few = replace(result, classes=CLASSES[:5], labels=labels, rows={"motion": RowResult.of(scores, labels)}, untrained_classes=())
    page = report_of(few, tmp_path, dataset)
    assert "top-5" not in page.text
    assert page.tables[0][0][:5] == ["row", "top-1", "95 % interval", "correct", "class mean"]
    assert all(len(row) == len(page.tables[0][0]) for row in page.tables[0])


def test_the_page_dwells_on_the_last_row_that_was_tested(dataset: Dataset, tmp_path: Path) -> None:
    result = lean(make_result(dataset), "appearance", "ST-ResNet")
    assert last_row(result.rows) == "ST-ResNet"
    page = report_of(result, tmp_path, dataset)
    assert page.tables[0][2][:3] == ["motion", "-", "-"]
    assert "the networks of the row were not tested" in page.text


def test_the_report_of_an_earlier_test_can_be_taken_away(folder: Any, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    discard_report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["per_class.csv", "per_video.csv", "results.json", "scores.h5", "table.md"]
