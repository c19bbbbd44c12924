"""The automatic split: videos divided into train and test without lists, so that nothing of a test video is seen in training."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.dataset.lists.tables import CSV_COLUMNS
from flowkit.errors import ManifestError
from flowkit.video.ids import group_of

AUTOMATIC = "automatic"  # instead of lists: a seeded split of the videos
TEST_FRACTION = 0.3  # of each class's videos; as in UCF101's and HMDB51's lists

_Group = tuple[str, str]  # class and name


def automatic_split(
    class_of: Mapping[str, str], *, seed: int = 0, file_of: Mapping[str, str] | None = None, fraction: float = TEST_FRACTION
) -> SplitLists:
    """Divide videos into train and test without lists: by a seed, class by class, and without dividing groups or identical files.

    Parameters
    ----------
    class_of : mapping of str to str
        From video id to class name.
    seed : int
        Another seed gives another split.
    file_of : mapping of str to str, optional
        The SHA-256 of the file of each video; missing or empty where it is unknown.
    fraction : float
        The share of each class's videos that goes to test, in (0, 1).

    Returns
    -------
    SplitLists
        About this share of each class's videos is in test, at least one group or video of each class that has two. Videos of a class
        whose ids share a ``_gNN_`` (one actor or scene, as in UCF101) stay together, and so do byte-identical videos of any class, with
        the groups that they are in. A class of one group, or one video, is all in train.

    Raises
    ------
    ManifestError
        If a video has no class (it lies in no folder).
    """
    groups: dict[_Group, list[str]] = defaultdict(list)
    for video_id, class_name in sorted(class_of.items()):
        if not class_name:
            raise ManifestError(
                f"{video_id!r} lies in no class folder, so its class is unknown: list it in a CSV file with the columns "
                f"{','.join(CSV_COLUMNS)} and pass it with --lists FILE.csv; or, if it does not belong to the data, delete "
                f"{f'clips/{video_id}.h5'!r} in the data root"
            )
        number = group_of(video_id)
        groups[class_name, video_id if number is None else f"g{number}"].append(video_id)
    leaders = _leaders(groups, file_of or {})
    units: dict[str, dict[_Group, list[str]]] = defaultdict(lambda: defaultdict(list))  # by class, and by what stays together
    for group, ids in groups.items():
        units[group[0]][leaders[group]] += ids
    train: list[ListEntry] = []
    test: list[ListEntry] = []
    in_test: dict[_Group, bool] = {}
    for class_name, members in sorted(units.items(), key=lambda item: (len(item[1]), item[0])):  # those with least choice first
        names = {unit: unit[1] if unit[0] == class_name else min(ids) for unit, ids in members.items()}
        sizes = {names[unit]: len(ids) for unit, ids in members.items()}
        fixed = {names[unit]: in_test[unit] for unit in members if unit in in_test}
        chosen = _test_groups(sizes, f"{seed}/{class_name}", fixed, fraction)
        for unit, ids in members.items():
            in_test[unit] = names[unit] in chosen
            (test if in_test[unit] else train).extend(ListEntry(video_id, class_name) for video_id in ids)
    return SplitLists(AUTOMATIC, tuple(sorted(units)), tuple(sorted(train, key=_by_id)), tuple(sorted(test, key=_by_id)))


def _leaders(groups: Mapping[_Group, list[str]], file_of: Mapping[str, str]) -> dict[_Group, _Group]:
    """Return, for each group, the first of those that it shares files with, directly or through others; itself, if it shares none."""
    leader = {group: group for group in groups}

    def leader_of(group: _Group) -> _Group:
        while leader[group] != group:
            group = leader[group]
        return group

    first_with: dict[str, _Group] = {}
    for group, ids in groups.items():
        for file in filter(None, (file_of.get(video_id) for video_id in ids)):
            one, other = leader_of(first_with.setdefault(file, group)), leader_of(group)
            leader[max(one, other)] = min(one, other)
    return {group: leader_of(group) for group in groups}


def _test_groups(sizes: dict[str, int], salt: str, fixed: Mapping[str, bool], fraction: float) -> set[str]:
    """Return the groups of a class that go to test: in an order by hash, each that brings the share closer to the target.

    Those that are fixed go where their byte-identical videos of another class are. At least one group stays in train if not all are fixed.
    """
    chosen = {group for group, is_test in fixed.items() if is_test}
    if len(sizes) < 2 or len(fixed) == len(sizes):
        return chosen
    drawn = sorted(sizes.keys() - fixed.keys(), key=lambda group: hashlib.sha256(f"{salt}/{group}".encode()).digest())
    target = fraction * sum(sizes.values())
    num_chosen = sum(sizes[group] for group in chosen)
    for group in drawn:
        if len(chosen) + 1 < len(sizes) and abs(num_chosen + sizes[group] - target) < abs(num_chosen - target):
            chosen.add(group)
            num_chosen += sizes[group]
    return chosen or {min(drawn, key=lambda group: sizes[group])}


def _by_id(entry: ListEntry) -> str:
    return entry.video_id
