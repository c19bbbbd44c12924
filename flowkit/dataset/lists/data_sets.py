"""What the official lists of UCF101 and HMDB51 contain: names of classes, and numbers and digests of the videos of each split.

The lists themselves are published by their authors; these facts say whether a downloaded copy is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowkit.dataset.lists.entries import ListEntry
from flowkit.video.ids import comparable_name


@dataclass(frozen=True)
class DataSet:
    """A data set with official lists.

    Parameters
    ----------
    name : str
        As people write it.
    classes : tuple of str
        The classes in order of label.
    num_videos : tuple of (int, int)
        Numbers of training and of test videos of splits 1, 2, 3.
    digests : tuple of str
        What `names_digest` returns of splits 1, 2, 3.
    folder : str
        The folder that the archive of the lists makes.
    archive : str
        The archive of the lists.
    video_archive : str
        The archive of the videos.
    """

    name: str
    classes: tuple[str, ...]
    num_videos: tuple[tuple[int, int], ...]
    digests: tuple[str, ...]
    folder: str
    archive: str
    video_archive: str


def names_digest(train: Iterable[ListEntry], test: Iterable[ListEntry]) -> str:
    """Return a SHA-256 of the names of a split's videos, whatever their order, case and Unicode composition."""
    digest = hashlib.sha256()
    for half, entries in (("train", train), ("test", test)):
        for name in sorted(comparable_name(entry.video_id) for entry in entries):
            digest.update(f"{half} {name}\n".encode())
    return digest.hexdigest()


_UCF101 = """
ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball BasketballDunk BenchPress
Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag BreastStroke BrushingTeeth
CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving Drumming Fencing FieldHockeyPenalty FloorGymnastics
FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering HammerThrow HandstandPushups HandstandWalking HeadMassage HighJump HorseRace
HorseRiding HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack JumpRope Kayaking Knitting LongJump Lunges MilitaryParade
Mixing MoppingFloor Nunchucks ParallelBars PizzaTossing PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar
PlayingPiano PlayingSitar PlayingTabla PlayingViolin PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor
RopeClimbing Rowing SalsaSpin ShavingBeard Shotput SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings
SumoWrestling Surfing Swing TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars VolleyballSpiking
WalkingWithDog WallPushups WritingOnBoard YoYo
"""
_HMDB51 = """
brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat fall_floor fencing flic_flac golf
handstand hit hug jump kick kick_ball kiss laugh pick pour pullup punch push pushup ride_bike ride_horse run shake_hands
shoot_ball shoot_bow shoot_gun sit situp smile smoke somersault stand swing_baseball sword sword_exercise talk throw turn
walk wave
"""
DATA_SETS: Mapping[str, DataSet] = {
    "ucf101": DataSet(
        "UCF101",
        tuple(_UCF101.split()),
        ((9537, 3783), (9586, 3734), (9624, 3696)),
        (
            "6ca94f279703c03d651b650e85482a9a210b8142d67ee47a875a1fa08d68d03e",
            "7eb661cd966d0797aa463c47ea04aef20834572eda42689cef29c9559534005b",
            "1f6ba08a9101ba9fcdf8cf1b0456af73c4815dc973ad806c9f1d2258920d16a9",
        ),
        "ucfTrainTestlist",
        "UCF101TrainTestSplits-RecognitionTask.zip",
        "UCF101.rar",
    ),
    "hmdb51": DataSet(
        "HMDB51",
        tuple(_HMDB51.split()),
        ((3570, 1530), (3570, 1530), (3570, 1530)),
        (
            "704530911c0f6b73b9b17184b8873b546d31aa6be6ffea07c543a0f485474036",
            "a5bb3bb76ceb18b9fb15e8877acfba3287b19d5b134855c9a5fc88c81ee482e5",
            "7d07597fe3688b928a4c8f97ea2ce6018b1bcd42c20bf893f04a88222724be81",
        ),
        "testTrainMulti_7030_splits",
        "test_train_splits.rar",
        "hmdb51_org.rar",
    ),
}
HMDB51_PER_CLASS = (70, 30)  # training and test videos of each class, in each split
