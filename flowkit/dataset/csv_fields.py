"""Fields of the CSV files that flowkit writes: none is a formula to a spreadsheet, and none holds a control character.

A spreadsheet evaluates a field that begins with ``=``, ``+``, ``-`` or ``@``, and names of videos and classes come from anywhere. A
field that could do harm is written as an apostrophe and the text, in which control characters and backslashes are escaped. All
others are written as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # with the full-width forms, which some spreadsheets evaluate too
# Spreadsheets of some countries cut lines at semicolons, so a formula may begin behind one.
_CUT = re.compile(rf";(?=[\s\"']*[{re.escape(_FORMULA)}])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # with those that turn the direction of text
_ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")
_MARK = "'"


def is_harmful(text: str) -> bool:
    """Return whether a spreadsheet would evaluate a field, or the field holds a control character."""
    return text.lstrip()[:1] in tuple(_FORMULA) or _CUT.search(text) is not None or _CONTROL.search(text) is not None


def harmless_field(text: str) -> str:
    r"""Return a field that a spreadsheet shows and does not evaluate; `original_field` gives the text back.

    Examples
    --------
    >>> harmless_field("ApplyEyeMakeup"), harmless_field("=1+1"), harmless_field("a\x1b[31m")
    ('ApplyEyeMakeup', "'=1+1", "'a\\x1b[31m")
    """
    if not is_harmful(text) and not text.startswith(_MARK):
        return text
    return _MARK + _CUT.sub(_escape, _CONTROL.sub(_escape, text.replace("\\", "\\\\")))


def original_field(field: str) -> str:
    r"""Return the text that `harmless_field` made a field from.

    Examples
    --------
    >>> original_field("'a\\x1b[31m") == "a\x1b[31m"
    True
    """
    if not field.startswith(_MARK):
        return field
    return _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else "\\", field[1:])


def csv_line(fields: Iterable[str]) -> str:
    """Return a line of CSV, with fields in quotes where needed; `csv.writer` leaves a bare CR bare on some versions of Python."""
    return ",".join('"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text for text in fields) + "\n"


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
