"""``flowkit doctor``: versions, devices, what is missing and how to fix it."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from typing import Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import inform, say, say_json, show
from flowkit.cli.shared.exit_codes import EXIT_ERROR
from flowkit.cli.shared.options import json_option, usage_errors
from flowkit.cli.shared.software import OPENCV, OPENCVS, PACKAGES, opencv_problem, package_problem
from flowkit.flow.cuda.card import KNOWN_CARDS, Card
from flowkit.versions import __version__, installed_version

THIS_MACHINE = "this machine"
CARDS = {card.name: card for card in KNOWN_CARDS.values()}


def _frame_size(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return the width and height of a text such as 340x256."""
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d{1,5})x([1-9]\d{1,5})", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no frame size: write width and height in px, such as 340x256")
    return int(match[1]), int(match[2])


@click.command(cls=Command)
@click.option("--plan", callback=_frame_size, metavar="WIDTHxHEIGHT", help="Print how the GPU solver would work on frames of this size.")
@click.option(
    "--card",
    type=click.Choice([THIS_MACHINE, *CARDS]),
    default=THIS_MACHINE,
    show_default=True,
    help="The GPU that --plan is about, which need not be in this machine.",
)
@json_option
def doctor(plan: tuple[int, int] | None, card: str, as_json: bool) -> int:
    """Show versions and devices, what is missing and how to fix it. The exit code is 1 if there is a problem."""
    if plan is not None:
        return _show_plans(plan, _cards(card), as_json=as_json)
    inform("doctor: importing every package that flowkit needs, which may take some seconds")
    findings = examine()
    if as_json:
        say_json("doctor", findings)
        return EXIT_ERROR if findings["problems"] else 0
    say(f"flowkit {__version__}, Python {findings['python']}, {findings['machine']}, {findings['cores']} cores")
    for name, found in findings["packages"].items():
        say(f"  {name:32} {found or 'missing':16} {PACKAGES[name if name in PACKAGES else OPENCV].purpose}")
    say("needed by some commands only:")
    for name, found in findings["extras"].items():
        package = PACKAGES[name]
        advice = "" if found else f"; pip install 'flowkit-video[{package.extra}]'"
        say(f"  {name:32} {found or 'missing':16} {package.purpose}{advice}")
    say("devices:")
    for name, text in findings["devices"].items():
        say(f"  {name:32} {show(text)}")
    for problem in findings["problems"]:
        say(f"problem: {show(problem)}")
    say(f"problems: {len(findings['problems'])}" if findings["problems"] else "no problems")
    return EXIT_ERROR if findings["problems"] else 0


def examine() -> dict[str, Any]:
    """Return versions, devices and problems as built-in types."""
    from flowkit.workers.processes import num_cores

    packages: dict[str, str | None] = {}
    for name in (name for name, package in PACKAGES.items() if not package.extra):
        if name == OPENCV:  # another distribution of OpenCV will do, if it has the contrib modules
            packages |= {opencv: installed_version(opencv) for opencv in OPENCVS if installed_version(opencv)} or {OPENCV: None}
        else:
            packages[name] = installed_version(name)
    found = [opencv_problem(), *(package_problem(name) for name in PACKAGES if name != OPENCV)]
    return {
        "flowkit": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": num_cores(),
        "packages": packages,
        "extras": {name: installed_version(name) for name, package in PACKAGES.items() if package.extra},
        "devices": {"training": _training_devices(), "flow": _flow_devices()},
        "problems": [problem for problem in found if problem],
    }


def _training_devices() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return "none: torch cannot be imported"
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ", ".join(names) if names else "CPU (no CUDA device that torch can use)"


def _flow_devices() -> str:
    """Describe the devices that `extract` can use, and why there is no GPU among them."""
    from flowkit.errors import DeviceError

    try:
        from flowkit.flow.cuda.device import list_devices

        names = [f"{device.name} (cuda:{device.index})" for device in list_devices()]
    except (DeviceError, ImportError) as error:
        return f"CPU; no GPU: {error}"
    return ", ".join([*names, "CPU"])


def _cards(name: str) -> list[Card]:
    """Return the known card of this name, or those of this machine."""
    if name != THIS_MACHINE:
        return [CARDS[name]]
    from flowkit.flow.cuda.device import list_devices

    return [device.card for device in list_devices()]


def _show_plans(size: tuple[int, int], cards: Sequence[Card], *, as_json: bool) -> int:
    """Print the tiling of each pyramid level on each card, with what the cost model expects of it."""
    from flowkit.flow.cuda.plan import check_frame_size, describe_refused, describe_tilings, is_small
    from flowkit.flow.params import TVL1Params

    width, height = size
    with usage_errors():
        check_frame_size(height, width)
        plans = [(card.name, describe_tilings(card, height, width, TVL1Params()), describe_refused(card)) for card in cards]
    if as_json:
        say_json("doctor-plan", {"plans": [{"card": name, "levels": levels, "never_chosen": others} for name, levels, others in plans]})
        return 0
    for name, levels, others in plans:
        say(f"TV-L1 of {width}x{height} px with default parameters on {show(name)}:")
        for level in levels:
            say(
                f"  {level['width']}x{level['height']:<6} {level['iterations_per_launch']} iterations per launch in tiles of "
                f"{level['tile']}: {level['warps_per_multiprocessor']} warps, {level['shared_bytes']:,} bytes of shared memory; "
                f"forecast {level['forecast_speed']:.2f} times the speed of the tiling that was measured"
            )
        if is_small(height, width):
            say("frames as small as these have one iteration per launch, so that each pair stops when the CPU's does")
        say("never chosen there:")
        for other in others:
            say(f"  {other['tile']}: {other['reason']}")
    return 0
