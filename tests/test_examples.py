"""Every public function and class has an example that runs; those that are skipped give a reason and are counted."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import flowkit
import flowkit.model

NUM_SKIPPED = 0  # examples that carry "# doctest: +SKIP"


def public_names() -> dict[str, Any]:
    """Return the public functions and classes, exceptions aside, by the name under which users know them."""
    names = {}
    for package in (flowkit, flowkit.model):
        for name in package.__all__:
            value = getattr(package, name)
            is_exception = isinstance(value, type) and issubclass(value, BaseException)
            if not is_exception and (inspect.isclass(value) or inspect.isroutine(value)):
                names[f"{package.__name__}.{name}".removeprefix("flowkit.")] = value
    return names


PUBLIC = public_names()


def doctests_of(name: str, value: Any) -> list[doctest.DocTest]:
    """Return the examples of a function, or of a class and its methods. They see no names but those that they import themselves."""
    tests = doctest.DocTestFinder(exclude_empty=True).find(value, name, globs={"__name__": "__main__"})
    return [test for test in tests if test.examples]


def is_skipped(example: doctest.Example) -> bool:
    return example.options.get(doctest.SKIP, False)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_of_a_public_name_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in doctests_of(name, PUBLIC[name]):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_every_public_function_and_class_has_an_example() -> None:
    assert [name for name, value in PUBLIC.items() if not doctests_of(name, value)] == []


def test_skipped_examples_give_a_reason_and_are_counted() -> None:
    examples = [example for name, value in PUBLIC.items() for test in doctests_of(name, value) for example in test.examples]
    skipped = [example for example in examples if is_skipped(example)]
    assert len(skipped) == NUM_SKIPPED
    for example in skipped:
        assert re.search(r"# \w.* +# doctest: \+SKIP$", example.source.strip()), f"no reason before '# doctest: +SKIP': {example.source}"


def test_an_example_that_is_wrong_is_found() -> None:
    def wrong() -> None:
        """Add.

        >>> 1 + 1
        3
        """

    runner = doctest.DocTestRunner()
    (test,) = doctests_of("wrong", wrong)
    assert runner.run(test, out=lambda _: None).failed == 1
