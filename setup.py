"""Lay model/ and cli/ inside the installed flowkit package; all other metadata is in pyproject.toml."""

from setuptools import find_packages, setup

INSIDE = ("model", "cli")  # top-level folders that install as flowkit.model and flowkit.cli

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
)
