"""Sizes of files as people write them on the command line."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

_MOST_BYTES = 2**63  # systems count no further


def parse_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Turn a size such as 500MB, 1GiB or 1.5 GiB into bytes."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|[kmgt]i?)b?", value.strip().lower())
    num_bytes = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= num_bytes < _MOST_BYTES:
        raise click.BadParameter(f"{value!r:.60} is not a size such as 500MB or 1GiB")
    return int(num_bytes)
