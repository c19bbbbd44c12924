"""The classes of UCF101 and HMDB51 in the order in which the ST-ResNet authors' networks list their outputs.

Their files name ImageNet's classes, whatever a network was trained on, so the order comes from here: ``classInd.txt`` for UCF101 and
``cnn_setup_data.m``, line 111, for HMDB51, which is sorted but for two swaps (kick_ball before kick, sword_exercise before sword).
"""

from __future__ import annotations

from collections.abc import Mapping

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
handstand hit hug jump kick_ball kick kiss laugh pick pour pullup punch push pushup ride_bike ride_horse run shake_hands
shoot_ball shoot_bow shoot_gun sit situp smile smoke somersault stand swing_baseball sword_exercise sword talk throw turn walk
wave
"""
CLASS_LISTS: Mapping[str, tuple[str, ...]] = {"ucf101": tuple(_UCF101.split()), "hmdb51": tuple(_HMDB51.split())}
