"""Split lists: the official ones as they are in the wild, CSV files, a seeded split of our own; names matched with care."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from flowkit.dataset.lists import entries as list_entries
from flowkit.dataset.lists.automatic import automatic_split
from flowkit.dataset.lists.choosing import find_lists
from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.dataset.lists.matching import match_lists
from flowkit.dataset.lists.reading import read_lists
from flowkit.errors import ManifestError

UCF101_COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def ucf101(folder: Path, *, end: str = "\n", train: str = "A/v_A_g01_c01.avi 1", test: str = "B/v_B_g02_c01.avi") -> Path:
    write(folder / "classInd.txt", end.join(["1 A", "2 B", "3 C", ""]))
    write(folder / "trainlist01.txt", train + end)
    write(folder / "testlist01.txt", test + end)
    return folder


def lists(train: list[str], test: list[str]) -> SplitLists:
    def entries(names: list[str]) -> tuple[ListEntry, ...]:
        return tuple(ListEntry(name, name.split("/")[0]) for name in names)

    return SplitLists("csv", tuple(sorted({name.split("/")[0] for name in train + test})), entries(train), entries(test))


# -- the official lists themselves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edition", ["ucf101", "ucf101_crlf_original"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_ucf101s_lists_have_their_known_sizes_and_labels(shared_data: Path, edition: str, number: int) -> None:
    split = read_lists(shared_data / "splits" / edition, number)
    assert split.protocol == "ucf101"
    assert (len(split.train), len(split.test)) == UCF101_COUNTS[number]
    assert len(split.classes) == 101
    assert (split.classes[0], split.classes[36], split.classes[100]) == ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
    assert {entry.class_name for entry in split.train} == {entry.class_name for entry in split.test} == set(split.classes)
    groups = [{entry.video_id.rsplit("_c", 1)[0] for entry in half} for half in (split.train, split.test)]
    assert not groups[0] & groups[1]


def test_both_spellings_of_handstand_pushups_match_each_other(shared_data: Path) -> None:
    corrected = read_lists(shared_data / "splits" / "ucf101", 1)
    original = read_lists(shared_data / "splits" / "ucf101_crlf_original", 1)
    ids = [entry.video_id for entry in (*original.train, *original.test)]
    assert "HandstandPushups/v_HandStandPushups_g08_c01" in ids
    matched = match_lists(corrected, ids)
    assert (len(matched.train), len(matched.test)) == UCF101_COUNTS[1]
    assert matched.missing_train == matched.missing_test == ()
    assert matched.unlisted == ()
    pushups = [entry for entry in matched.train if entry.video_id.startswith("HandstandPushups/")]
    assert len(pushups) == 100
    assert {entry.class_name for entry in pushups} == {"HandstandPushups"}  # the list's spelling is canonical
    assert all("v_HandStandPushups" in entry.video_id for entry in pushups)  # the video keeps its own name


@pytest.mark.parametrize("number", [1, 2, 3])
def test_hmdb51s_lists_have_70_train_and_30_test_videos_a_class(shared_data: Path, number: int) -> None:
    split = read_lists(shared_data / "splits" / "hmdb51", number)
    assert split.protocol == "hmdb51"
    assert (len(split.train), len(split.test), len(split.unused)) == (3570, 1530, 1666)
    assert split.classes == tuple(sorted(split.classes))
    assert len(split.classes) == 51
    assert set(Counter(entry.class_name for entry in split.train).values()) == {70}
    assert set(Counter(entry.class_name for entry in split.test).values()) == {30}


def test_hmdb51s_strange_names_are_kept_whole(shared_data: Path) -> None:
    split = read_lists(shared_data / "splits" / "hmdb51", 1)
    ids = {entry.video_id for entry in (*split.train, *split.test)}
    assert "brush_hair/Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0" in ids
    assert not [video_id for video_id in ids if video_id.endswith(".avi")]


def test_the_mini_lists_are_read(shared_data: Path) -> None:
    split = read_lists(shared_data / "splits" / "mini.csv", 7)
    assert (split.protocol, len(split.train), len(split.test), len(split.classes)) == ("csv", 10, 8, 6)


def test_lists_beside_the_videos_are_found_and_matched(shared_data: Path, tmp_path: Path) -> None:
    videos = shared_data / "videos" / "ucf101"
    ids = [path.relative_to(videos).with_suffix("").as_posix() for path in videos.rglob("*.avi")]
    (tmp_path / "videos").mkdir()
    (tmp_path / "ucfTrainTestlist").symlink_to(shared_data / "splits" / "ucf101")
    (tmp_path / "other").symlink_to(shared_data / "splits" / "hmdb51")
    found = find_lists(tmp_path / "videos", ids)
    assert found.matching == (tmp_path / "ucfTrainTestlist",)
    assert found.others == (tmp_path / "other",)
    matched = match_lists(read_lists(found.matching[0], 1), ids)
    assert (len(matched.train), len(matched.test)) == (6, 12)
    assert matched.untrained_classes == ("ApplyEyeMakeup", "BenchPress", "RopeClimbing")
    assert (len(matched.missing_train), len(matched.missing_test)) == (9537 - 6, 3783 - 12)


# -- UCF101's format ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_both_line_ends_are_read_and_absent_classes_keep_their_label(tmp_path: Path, end: str) -> None:
    split = read_lists(ucf101(tmp_path, end=end), 1)
    assert split.classes == ("A", "B", "C")
    assert split.train == (ListEntry("A/v_A_g01_c01", "A"),)
    assert split.test == (ListEntry("B/v_B_g02_c01", "B"),)


def test_a_folder_in_another_case_has_the_class_of_classind(tmp_path: Path) -> None:
    assert read_lists(ucf101(tmp_path, train="a/v_x.avi 1"), 1).train == (ListEntry("a/v_x", "A"),)


def test_names_with_spaces_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    ucf101(tmp_path, train="\ufeffA/my video (1).avi 1\n\n  \nA/é\u2028😀.mp4\t1")
    assert [entry.video_id for entry in read_lists(tmp_path, 1).train] == ["A/my video (1)", "A/é\u2028😀"]


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("trainlist01.txt", "A/v.avi", "line 1"),
        ("trainlist01.txt", "A/u.avi 1\nB/v.avi 1", "line 2"),
        ("trainlist01.txt", "A/v.avi 9", "numbered 9"),
        ("trainlist01.txt", "D/v.avi 4", "no class"),
        ("trainlist01.txt", "v.avi 0", "no class"),
        ("trainlist01.txt", "v.avi 4", "no class"),
        ("testlist01.txt", "v.avi", "no class"),
        ("trainlist01.txt", "A/v.avi 1\nA/v.avi 1", "twice"),
        ("trainlist01.txt", "A/v.avi 1\nA/v.mp4 1", "twice"),
        ("trainlist01.txt", "A/../../v.avi 1", "'..'"),
        ("trainlist01.txt", "/A/v.avi 1", "absolute"),
        ("testlist01.txt", "A/v_A_g01_c01.avi", "twice"),
        ("classInd.txt", "1 A\n3 B", "line 2"),
        ("classInd.txt", "0 A\n1 B", "line 1"),
        ("classInd.txt", "1 A\n2 a", "twice"),
        ("classInd.txt", "1", "line 1"),
    ],
)
def test_lines_that_cannot_be_are_refused_with_their_place(tmp_path: Path, file: str, text: str, told: str) -> None:
    write(ucf101(tmp_path) / file, text)
    with pytest.raises(ManifestError, match=told):
        read_lists(tmp_path, 1)


def test_lists_that_are_not_utf8_or_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (ucf101(tmp_path) / "testlist01.txt").write_bytes(b"A/caf\xe9.avi\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_lists(tmp_path, 1)
    (tmp_path / "testlist01.txt").unlink()
    with pytest.raises(ManifestError, match="testlist01"):
        read_lists(tmp_path, 1)


@pytest.mark.parametrize("changed", ["trainlist01.txt", "classInd.txt", "testlist01.txt"])
def test_lists_that_change_while_they_are_read_are_refused(tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of a split are several files, which must be of one version."""
    ucf101(tmp_path)
    read, names = list_entries.read_text, []

    def disturbed(path: Path) -> str:
        names.append(path.name)
        text = read(path)
        if len(names) == 2:
            (tmp_path / changed).write_text((tmp_path / changed).read_text() + "\n")
        return text

    with monkeypatch.context() as patch:
        patch.setattr(list_entries, "read_text", disturbed)
        with pytest.raises(ManifestError, match="were changed while they were read; once they are complete, pack again"):
            read_lists(tmp_path, 1)
    assert read_lists(tmp_path, 1).train


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(ucf101(tmp_path) / "trainlist03.txt", "A/v.avi 1")
    with pytest.raises(ManifestError, match=r"split 2; it has 1, 3"):
        read_lists(tmp_path, 2)
    with pytest.raises(ManifestError, match="no split lists"):
        read_lists(tmp_path / "absent", 1)


# -- HMDB51's format ---------------------------------------------------------------------------------------------------------------


def test_hmdb51s_codes_divide_the_videos(tmp_path: Path) -> None:
    write(tmp_path / "wave_test_split1.txt", "a b.avi 1 \r\n#c!.avi 2 \r\nd(1)[x].avi 0 \r\n")
    write(tmp_path / "brush_hair_test_split1.txt", "e.avi 2\n")
    write(tmp_path / "brush_hair_test_split2.txt", "e.avi 1\n")
    split = read_lists(tmp_path, 1)
    assert split.classes == ("brush_hair", "wave")
    assert split.train == (ListEntry("wave/a b", "wave"),)
    assert split.test == (ListEntry("brush_hair/e", "brush_hair"), ListEntry("wave/#c!", "wave"))
    assert split.unused == (ListEntry("wave/d(1)[x]", "wave"),)
    assert read_lists(tmp_path, 2).classes == ("brush_hair",)


@pytest.mark.parametrize("line", ["a.avi 3", "a.avi", "1", "a.avi x", "../a.avi 1"])
def test_hmdb51_lines_that_cannot_be_are_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path / "wave_test_split1.txt", line)
    with pytest.raises(ManifestError, match="line 1"):
        read_lists(tmp_path, 1)


# -- CSV ---------------------------------------------------------------------------------------------------------------------------


def test_a_csv_list_holds_any_name(tmp_path: Path) -> None:
    names = ['a "quoted", name', "two\nlines", "é😀", " space ", "x.y.z"]
    rows = [f'"{name}"'.replace('"a "quoted", name"', '"a ""quoted"", name"') for name in names]
    path = write(tmp_path / "x.csv", "video_id,class_name,subset\r\n" + "".join(f"{row},c,train\r\n" for row in rows) + "t,b,test\r\n")
    split = read_lists(path, 1)
    assert [entry.video_id for entry in split.train] == names
    assert split.classes == ("b", "c")
    assert split.test == (ListEntry("t", "b"),)


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "\ufeffsubset,note,video_id,class_name\ntrain,hello,v,c\n")
    assert read_lists(path, 1).train == (ListEntry("v", "c"),)


def test_spaces_around_the_name_of_a_class_and_empty_fields_at_the_end_do_not_matter(tmp_path: Path) -> None:
    lists = read_lists(write(tmp_path / "x.csv", "video_id, class_name, subset\nu, c, train,,\nv,c , test\n"), 1)
    assert lists.classes == ("c",)
    assert (len(lists.train), len(lists.test)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "first line"),
        ("video_id,class_name\nv,c", "subset"),
        ("video_id,class_name,subset\nv,c,neither", "line 2"),
        ("video_id,class_name,subset\nv,,train", "line 2"),
        ("video_id,class_name,subset\nv,c", "line 2"),
        ("video_id,class_name,subset\n,c,train", "line 2"),
        ("video_id,class_name,subset\nu,c,train\n../v,c,train", "line 3"),
        ("video_id,class_name,subset\nv,c,train\nv,c,test", "twice, in train and test"),
        ("video_id,class_name,subset\nv,c,train\nv,c,train", "twice, in train; remove"),
        ("video_id,class_name,subset,subset\nv,c,train,test", "column subset twice"),
        ("video_id,class_name,subset\nv,c,train,more", "line 2: has 4 fields, the first line 3"),
        ('video_id,class_name,subset\n"v,c,train', "CSV"),
        ('video_id,class_name,subset\n"v"x,c,train', "CSV"),
    ],
)
def test_csv_lists_that_cannot_be_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ManifestError, match=told):
        read_lists(write(tmp_path / "x.csv", text), 1)


# -- where lists are searched ------------------------------------------------------------------------------------------------------


def test_lists_are_searched_in_the_videos_their_parent_and_its_subfolders_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for place in ("videos", ".", "lists", "videos/deeper", "lists/deeper", ".."):
        ucf101(home / place)
    write(home / "lists.csv", "video_id,class_name,subset\nA/v_A_g01_c01,A,train\n")
    found = find_lists(home / "videos", ["A/v_A_g01_c01"])
    assert found.matching == tuple(sorted([home, home / "videos", home / "lists"]))


def test_folders_whose_lists_name_no_video_are_told_apart(tmp_path: Path) -> None:
    ucf101(tmp_path / "mine")
    ucf101(tmp_path / "another", train="A/other.avi 1", test="B/another.avi")
    found = find_lists(tmp_path / "videos", ["b/V_b_g02_c01"])  # matched without case
    assert found.matching == (tmp_path / "mine",)
    assert found.others == (tmp_path / "another",)
    nothing = find_lists(tmp_path / "videos", ["x"])
    assert (nothing.matching, len(nothing.others)) == ((), 2)


def test_a_relative_video_folder_has_a_parent_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ucf101(tmp_path / "lists")
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_lists(Path("videos"), ["A/v_A_g01_c01"]).matching == (tmp_path / "lists",)


def test_no_lists_are_no_error(tmp_path: Path) -> None:
    found = find_lists(tmp_path / "absent" / "videos", ["a"])
    assert (found.matching, found.others) == ((), ())


# -- matching names ----------------------------------------------------------------------------------------------------------------


def test_an_exact_name_wins_over_one_in_another_case() -> None:
    matched = match_lists(lists(["a/X"], ["a/x"]), ["a/x", "a/X", "a/y"])
    assert [entry.video_id for entry in matched.train] == ["a/X"]
    assert [entry.video_id for entry in matched.test] == ["a/x"]
    assert matched.unlisted == ("a/y",)


def test_unicode_composition_does_not_matter() -> None:
    matched = match_lists(lists(["caf\u00e9/1"], []), ["cafe\u0301/1"])
    assert matched.train == (ListEntry("cafe\u0301/1", "caf\u00e9"),)


def test_a_video_of_an_exact_match_is_not_taken_again() -> None:
    matched = match_lists(lists(["a/x", "a/X"], []), ["a/x"])
    assert [entry.video_id for entry in matched.train] == ["a/x"]
    assert [entry.video_id for entry in matched.missing_train] == ["a/X"]


def test_a_name_that_fits_two_videos_is_an_error_naming_both() -> None:
    with pytest.raises(ManifestError, match=r"a/Xx.*a/xX"):
        match_lists(lists(["a/XX"], []), ["a/xX", "a/Xx"])


def test_two_names_that_fit_one_video_are_an_error_naming_both() -> None:
    with pytest.raises(ManifestError, match=r"a/xX.*a/Xx"):
        match_lists(lists(["a/xX"], ["a/Xx"]), ["a/XX"])


def test_missing_videos_are_told_in_the_lists_order_and_spelling() -> None:
    matched = match_lists(lists(["b/2", "b/1", "a/1"], ["c/9"]), ["a/1"])
    assert [entry.video_id for entry in matched.missing_train] == ["b/2", "b/1"]
    assert [entry.video_id for entry in matched.missing_test] == ["c/9"]


def test_classes_with_test_videos_only_are_told() -> None:
    matched = match_lists(lists(["a/1", "b/1"], ["a/2", "b/2", "c/2"]), ["a/1", "a/2", "b/2", "c/2"])
    assert matched.untrained_classes == ("b", "c")


# -- the automatic split -----------------------------------------------------------------------------------------------------------


def test_the_automatic_split_is_the_same_whatever_the_order_and_differs_by_seed() -> None:
    class_of = {f"{name}/v_{k}": name for name in "abc" for k in range(20)}
    split = automatic_split(class_of)
    assert split == automatic_split(dict(reversed(class_of.items())))
    assert split != automatic_split(class_of, seed=1)
    assert split.protocol == "automatic"
    assert split.classes == ("a", "b", "c")
    assert sorted(entry.video_id for entry in (*split.train, *split.test)) == sorted(class_of)


def test_each_class_gives_about_30_percent_of_its_videos_to_test() -> None:
    class_of = {f"c{size}/v_{k}": f"c{size}" for size in range(2, 40) for k in range(size)}
    split = automatic_split(class_of)
    in_test = Counter(entry.class_name for entry in split.test)
    for size in range(2, 40):
        assert 1 <= in_test[f"c{size}"] < size
        assert abs(in_test[f"c{size}"] - 0.3 * size) <= 0.5


def test_groups_are_never_divided() -> None:
    class_of = {f"{name}/v_{name}_g{group:02d}_c{k:02d}": name for name in ("A", "B") for group in range(1, 26) for k in range(1, 5)}
    split = automatic_split(class_of)
    groups = [{entry.video_id.rsplit("_c", 1)[0] for entry in half} for half in (split.train, split.test)]
    assert not groups[0] & groups[1]
    assert Counter(entry.class_name for entry in split.test) == {"A": 28, "B": 28}


def test_a_class_of_one_group_or_one_video_is_all_in_train() -> None:
    split = automatic_split({"A/v_A_g01_c01": "A", "A/v_A_g01_c02": "A", "B/x": "B", "C/1": "C", "C/2": "C"})
    assert {entry.class_name for entry in split.test} == {"C"}
    assert Counter(entry.class_name for entry in split.train) == {"A": 2, "B": 1, "C": 1}


def test_groups_of_unlike_size_leave_both_halves_filled() -> None:
    for seed in range(20):
        split = automatic_split({f"A/v_g{1 if k < 19 else 2:02d}_c{k:02d}": "A" for k in range(20)}, seed=seed)
        assert (len(split.train), len(split.test)) == (19, 1)


def test_a_video_outside_any_class_folder_asks_for_a_csv_list() -> None:
    with pytest.raises(ManifestError, match=r"--lists FILE\.csv"):
        automatic_split({"a": ""})
