"""HTML pages that need no server and no network: a template with its style and its script, and a policy that allows no other script.

Names of classes, videos and folders may come from anyone. The templates escape every value, and their filter ``tojson`` gives JSON in
which no text can end the script that it stands in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowkit.versions import __version__
from flowkit.words import printable_name

_THEME = Path(__file__).with_name("theme.css")


def render_html(page: Path, values: Mapping[str, Any], *, style_of: Path | None = None) -> str:
    """Return a page as HTML.

    Parameters
    ----------
    page : Path
        The files of the page without their suffixes: the template ``.html.jinja``, which may include others of its folder, the style
        ``.css``, which follows the colours and fields that all pages share, and the script ``.js``, if it has one.
    values : mapping of str to object
        What the template shows. It also gets `version`, `style` and `script`, and with `style_hash` and `script_hash` what a content
        security policy calls these two.
    style_of : Path, optional
        Another page whose style this one has.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    template, style = page.name + ".html.jinja", (style_of or page).with_suffix(".css").read_text(encoding="utf-8")
    script_file = page.with_suffix(".js")
    script = script_file.read_text(encoding="utf-8") if script_file.is_file() else ""
    style = _THEME.read_text(encoding="utf-8") + style
    own = {"style": Markup(style), "script": Markup(script)}  # noqa: S704 - files of flowkit's own
    hashes = {"style_hash": _hash(style), "script_hash": _hash(script)}
    environment = Environment(
        loader=FileSystemLoader(page.parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template(template).render({"version": __version__, **own, **hashes, **values})


def visible(value: object) -> object:
    """Return a text with invisible characters escaped: line feeds, and marks that change the direction of writing."""
    return printable_name(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _hash(text: str) -> str:
    """Return what a content security policy calls an element of this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
