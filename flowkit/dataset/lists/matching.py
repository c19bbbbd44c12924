"""Which video of a data root each entry of a list is: matched by name, never guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.errors import ManifestError
from flowkit.video.ids import comparable_name, name_ends, without_suffix


@dataclass(frozen=True)
class Matched:
    """The lists of a split compared with the videos of a data root.

    Parameters
    ----------
    train, test : tuple of ListEntry
        Entries whose video was found, with the id of the video and the class name of the list, sorted by id.
    missing_train, missing_test : tuple of ListEntry
        Entries whose video was not found, in the spelling and order of the list.
    unlisted : tuple of str
        Ids of the videos that are in neither half, sorted.
    untrained_classes : tuple of str
        Classes with a test video but no training video, in order of label.
    by_end : tuple of (str, str)
        Entries of the two halves whose name is only the end of the id of their video, or the other way round, with that id.
    reasons : dict of str to str
        Why an entry of `missing_train` or `missing_test` was not matched although videos have a similar name.
    """

    train: tuple[ListEntry, ...]
    test: tuple[ListEntry, ...]
    missing_train: tuple[ListEntry, ...]
    missing_test: tuple[ListEntry, ...]
    unlisted: tuple[str, ...]
    untrained_classes: tuple[str, ...]
    by_end: tuple[tuple[str, str], ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """Which video each entry is.

    Parameters
    ----------
    video_of : dict of str to str
        The id of the video, by the name of the entry.
    by_end : dict of str to str
        Those of `video_of` that were found by the end of a name only.
    several : dict of str to tuple of str
        Entries that were not matched since the ends of several videos' names fit, with these videos.
    reasons : dict of str to str
        Why entries were not matched although there are videos with similar names.
    """

    video_of: Mapping[str, str]
    by_end: Mapping[str, str]
    several: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]


def match_lists(lists: SplitLists, video_ids: Iterable[str]) -> Matched:
    """Find the videos that lists name; see `pair_names`.

    Parameters
    ----------
    lists : SplitLists
        The lists.
    video_ids : iterable of str
        The videos that were extracted.

    Raises
    ------
    ManifestError
        If a name without an exact match fits two videos that differ only in case, or two such names fit one video; names both.
    """
    there = set(video_ids)
    pairs = pair_names((*lists.train, *lists.test, *lists.unused), there)

    def divide(entries: tuple[ListEntry, ...]) -> tuple[tuple[ListEntry, ...], tuple[ListEntry, ...]]:
        found = [(entry, pairs.video_of.get(entry.video_id)) for entry in entries]
        present = sorted((ListEntry(name, entry.class_name) for entry, name in found if name is not None), key=lambda entry: entry.video_id)
        return tuple(present), tuple(entry for entry, name in found if name is None)

    train, missing_train = divide(lists.train)
    test, missing_test = divide(lists.test)
    listed = {entry.video_id for entry in (*train, *test)}
    untrained = {entry.class_name for entry in test} - {entry.class_name for entry in train}
    return Matched(
        train,
        test,
        missing_train,
        missing_test,
        unlisted=tuple(sorted(there - listed)),
        untrained_classes=tuple(name for name in lists.classes if name in untrained),
        by_end=tuple((name, video_id) for name, video_id in sorted(pairs.by_end.items()) if video_id in listed),
        reasons=pairs.reasons,
    )


def pair_names(entries: Sequence[ListEntry], video_ids: Iterable[str]) -> Pairs:
    """Find the video of each entry.

    Parameters
    ----------
    entries : sequence of ListEntry
        Entries with different names.
    video_ids : iterable of str
        The videos.

    Returns
    -------
    Pairs
        A video matches an entry of the same name; else of a name that differs only in case, Unicode composition or the suffix of a
        file; else if one of the two names is the end of the other (``A/x`` and ``data/A/x``, or ``x``) and this is so for no other
        entry and no other video, or for no other one whose folder is called as the entry's class.

    Raises
    ------
    ManifestError
        If a name without an exact match fits two videos that differ only in case, or two such names fit one video; names both.
    """
    there = set(video_ids)
    video_of = {entry.video_id: entry.video_id for entry in entries if entry.video_id in there}
    alike: dict[str, list[str]] = defaultdict(list)
    for video_id in sorted(there.difference(video_of.values())):
        alike[comparable_name(video_id)].append(video_id)
    matched_name = {video_id: video_id for video_id in video_of}
    for entry in entries:
        if entry.video_id in video_of:
            continue
        bare = without_suffix(entry.video_id)
        fitting = alike.get(comparable_name(entry.video_id)) or alike.get(comparable_name(bare)) or []
        if not fitting and bare in matched_name:
            fitting = [bare]
        if len(fitting) > 1:
            raise ManifestError(
                f"{entry.video_id!r} of the split lists fits both {fitting[0]!r} and {fitting[1]!r}; rename one of the videos"
            )
        for video_id in fitting:
            other = matched_name.setdefault(video_id, entry.video_id)
            if other != entry.video_id:
                raise ManifestError(
                    f"{other!r} and {entry.video_id!r} of the split lists both fit {video_id!r}; rename the video as one of them, or "
                    "remove one row"
                )
            video_of[entry.video_id] = video_id
    rest = [entry for entry in entries if entry.video_id not in video_of]
    ends = _pair_ends(rest, sorted(there.difference(video_of.values())))
    found = {**video_of, **ends.video_of}
    again = _named_again([entry for entry in rest if entry.video_id not in found], found)
    return Pairs(found, ends.by_end, ends.several, {**again, **ends.reasons})


def _named_again(entries: Sequence[ListEntry], video_of: Mapping[str, str]) -> dict[str, str]:
    """Return why entries have no video, if their names fit one that another entry names in full."""
    taken: dict[str, tuple[str, str]] = {}
    for name, video_id in video_of.items():
        for end in name_ends(comparable_name(video_id)):
            taken.setdefault(end, (name, video_id))
    of_entry = {entry.video_id: taken.get(comparable_name(without_suffix(entry.video_id))) for entry in entries}
    return {
        name: f"fits {other[1]!r}, which the row {other[0]!r} names already; remove one of the rows"
        for name, other in of_entry.items()
        if other is not None
    }


def _pair_ends(entries: Sequence[ListEntry], video_ids: Sequence[str]) -> Pairs:
    """Pair entries with videos by the ends of their names."""
    longer: dict[str, list[str]] = defaultdict(list)  # the videos whose id ends so, or is just that
    whole: dict[str, list[str]] = defaultdict(list)  # the videos whose id is just that
    for video_id in video_ids:
        ends = name_ends(comparable_name(video_id))
        whole[ends[0]].append(video_id)
        for end in ends:
            longer[end].append(video_id)
    several: dict[str, tuple[str, ...]] = {}
    reasons: dict[str, str] = {}
    claims: dict[str, list[ListEntry]] = defaultdict(list)
    for entry in entries if video_ids else ():
        for name in (without_suffix(entry.video_id), *entry.also):
            own, *shorter = name_ends(comparable_name(name))
            fitting = list(dict.fromkeys([*longer.get(own, ()), *(video_id for end in shorter for video_id in whole.get(end, ()))]))
            if len(fitting) > 1:
                of_class = [video_id for video_id in fitting if _is_in_folder(video_id, entry.class_name)]
                fitting = of_class if len(of_class) == 1 else fitting
            if len(fitting) > 1:
                several[entry.video_id] = tuple(fitting)
                reasons[entry.video_id] = f"could be {fitting[0]!r} or {fitting[1]!r}"
            elif fitting:
                claims[fitting[0]].append(entry)
            if fitting:
                break
    found = {}
    for video_id, claimants in claims.items():
        if len(claimants) == 1:
            found[claimants[0].video_id] = video_id
            continue
        for entry, other in zip(claimants, (claimants[1], *claimants), strict=False):
            reasons[entry.video_id] = f"could be {video_id!r}, and so could {other.video_id!r}"
    return Pairs(found, found, several, reasons)


def _is_in_folder(video_id: str, name: str) -> bool:
    return comparable_name(video_id.rpartition("/")[0].rpartition("/")[2]) == comparable_name(name)
