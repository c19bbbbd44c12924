"""Lay model/ and cli/ inside the installed flowkit package, and describe it; all other metadata is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INSIDE = ("model", "cli")  # top-level folders that install as flowkit.model and flowkit.cli


def description(readme: str) -> str:
    """Return the README for a page outside the repository: without what only the repository has, which are its pictures and its pages.

    Links to files of the repository become their texts, since there is no public address yet that they could lead to.
    """
    text = re.sub(r"<!--.*?-->\n?", "", readme, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:)[^)]*\)", r"\1", text)


if __name__ == "__main__":
    setup(
        packages=find_packages(include=["flowkit", "flowkit.*"])
        + ["flowkit." + name for top in INSIDE for name in find_packages(include=[top, top + ".*"])],
        package_dir={"flowkit." + top: top for top in INSIDE},
        package_data={
            "flowkit": ["py.typed"],
            "flowkit.flow.cuda": ["*.cu"],
            "flowkit.describe": ["*.jinja", "*.css", "*.js"],
            "flowkit.model.report": ["*.jinja", "*.css", "*.js"],
        },
        long_description=description(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
