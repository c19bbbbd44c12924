"""How counts, times, sizes and names are written for people."""

from __future__ import annotations

from decimal import Decimal


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is in the plural unless the number is one.

    Examples
    --------
    >>> from flowkit.words import counted
    >>> counted(1, "flow field"), counted(13320, "video"), counted(0, "class")
    ('1 flow field', '13,320 videos', '0 classes')
    """
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def duration(seconds: float) -> str:
    """Return seconds as people write them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rough_duration(seconds: float) -> str:
    """Return seconds as people write an estimate, with one or two digits: 1 min, 40 min, 3.5 h, 2 days.

    Examples
    --------
    >>> from flowkit.words import rough_duration
    >>> [rough_duration(seconds) for seconds in (8, 2390, 12345, 90000, 200000)]
    ['1 min', '40 min', '3.4 h', '25 h', '2.3 days']
    """
    if seconds < 3570:
        return f"{max(round(seconds / 60), 1)} min"
    hours = seconds / 3600
    if hours < 48:
        return f"{hours:.1f} h" if hours < 9.95 else f"{hours:.0f} h"
    return f"{hours / 24:.1f} days" if hours < 238 else f"{hours / 24:.0f} days"


def percentage(share: float) -> str:
    """Return a share in percent with two digits that count, never in powers of ten: 0 %, less than 0.001 %, 0.034 %, 12 %.

    Examples
    --------
    >>> from flowkit.words import percentage
    >>> [percentage(share) for share in (0, 9.19e-07, 0.00034, 0.1234, 0.9999, 1)]
    ['0 %', 'less than 0.001 %', '0.034 %', '12 %', '99.99 %', '100 %']
    """
    percent = 100 * share
    if percent == 0:
        return "0 %"
    if percent < 0.001:
        return "less than 0.001 %"
    if percent > 99:
        return f"{percent:.2f}".rstrip("0").rstrip(".") + " %" if percent <= 99.99 or share == 1 else "more than 99.99 %"
    return f"{Decimal(f'{percent:.2g}'):f} %"


def size(num_bytes: float) -> str:
    """Return a number of bytes as people write it: 17.5 kB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def printable(text: object) -> str:
    """Return text with control characters and lone surrogates escaped, so that a file's name cannot control the terminal."""
    return "".join(
        c if c == "\n" or (c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF) else c.encode("unicode_escape").decode() for c in str(text)
    )


def printable_name(name: object) -> str:
    """Return the name of a file or video on one line: newlines are escaped too."""
    return printable(name).replace("\n", "\\n")
