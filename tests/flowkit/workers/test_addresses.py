"""Addresses of a Dask cluster as texts: IPv4, IPv6 and names, and what is said of texts that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowkit.cli.main import flowkit as command
from flowkit.errors import ParameterError
from flowkit.extraction.run import extract
from flowkit.workers.addresses import DaskAddress, parse_address

WRONG = [
    ("", "it names no machine"),
    ("tcp://", "it names no machine"),
    (":8786", "it names no machine"),
    ("what://a:1", "what:// is not one of the schemes"),
    ("http://10.0.0.1:8787", "http:// is not one of the schemes"),
    ("a:b", "'b' is not the number of a port"),
    ("a:", "'' is not the number of a port"),
    ("a:0", "'0' is not the number of a port"),
    ("a:65536", "'65536' is not the number of a port"),
    ("10.0.0.1:8786/status", "'8786/status' is not the number of a port"),
    ("[::1]:x", "'x' is not the number of a port"),
    ("::1", "an IPv6 address needs brackets, before the port"),
    ("tcp://fd00::1:8786", "an IPv6 address needs brackets, before the port"),
    ("[::1", "an IPv6 address needs brackets, before the port"),
    ("[::1]8786", "an IPv6 address needs brackets, before the port"),
    ("[g::1]:8786", "'g::1' is no IPv6 address"),
    ("[10.0.0.1]:8786", "'10.0.0.1' is no IPv6 address"),
    ("10.0.0:8786", "'10.0.0' is no IPv4 address"),
    ("10.0.0.256", "'10.0.0.256' is no IPv4 address"),
    ("a machine:1", "no machine can be called 'a machine'"),
    ("me@machine:1", "no machine can be called 'me@machine'"),
    ("a..b:1", "no machine can be called 'a..b'"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://10.0.0.1:8786", DaskAddress("tcp", "10.0.0.1", 8786)),
        ("10.0.0.1", DaskAddress("tcp", "10.0.0.1", 8786)),
        ("tcp://[::1]:1234", DaskAddress("tcp", "::1", 1234)),
        ("[fd00::1]", DaskAddress("tcp", "fd00::1", 8786)),
        ("[fe80::1%eth0]:65535", DaskAddress("tcp", "fe80::1%eth0", 65535)),
        ("TLS://gpu-1.example.org:1", DaskAddress("tls", "gpu-1.example.org", 1)),
        ("node_7", DaskAddress("tcp", "node_7", 8786)),
    ],
)
def test_an_address_is_taken_apart_and_put_together(text: str, expected: DaskAddress) -> None:
    assert parse_address(text) == expected
    assert parse_address(str(expected)) == expected


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_a_text_that_is_no_address_is_explained(text: str, reason: str) -> None:
    with pytest.raises(ParameterError) as raised:
        parse_address(text)
    assert str(raised.value).startswith(f"{text!r} is no address of a Dask scheduler ({reason}")
    assert "tcp://10.0.0.1:8786, tcp://[fd00::1]:8786 or tcp://machine:8786" in str(raised.value)


@pytest.mark.parametrize("text", ["::1", "a:b", "http://10.0.0.1:8787", ""])
def test_the_command_ends_with_exit_code_2_before_anything_is_read_or_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    line = ["extract", str(tmp_path / "videos"), "--data", str(tmp_path / "data"), "--cluster", text]
    done = CliRunner().invoke(command, line)
    assert done.exit_code == 2
    assert "is no address of a Dask scheduler" in done.output
    assert "--cluster" in done.output
    assert not (tmp_path / "data").exists()


def test_so_does_the_function_also_without_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ParameterError, match="needs brackets"):
        extract(tmp_path / "videos", tmp_path / "data", cluster="::1")
