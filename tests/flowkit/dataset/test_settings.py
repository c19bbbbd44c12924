"""The settings of a data root: what is stored comes back, and what contradicts itself is refused."""

from __future__ import annotations

import pytest

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, ParameterError
from flowkit.flow.params import TVL1Params
from flowkit.quantise import Quantiser

IMPORTED = ExtractSettings(preset="imported", solver="gpu_flow", quantiser=Quantiser(20, "paper"), short_side=0, codec="jpeg")


@pytest.mark.parametrize("settings", [ExtractSettings(), ExtractSettings(solver="cuda", short_side=128), IMPORTED])
def test_settings_come_back_from_what_is_stored(settings: ExtractSettings) -> None:
    assert ExtractSettings.from_dict(settings.to_dict()) == settings


def test_imported_settings_claim_no_tvl1_parameters_and_no_size() -> None:
    stored = IMPORTED.to_dict()
    assert (stored["tvl1"], stored["short_side"], stored["solver"]) == ({}, 0, "gpu_flow")
    assert IMPORTED.is_imported
    assert not ExtractSettings().is_imported


@pytest.mark.parametrize(
    "wrong",
    [
        {"solver": "gpu_flow"},
        {"preset": "imported"},
        {"preset": "imported", "solver": "denseflow", "short_side": 256},
        {"preset": "imported", "solver": "denseflow", "short_side": 0, "tvl1": TVL1Params(tau=0.1)},
        {"short_side": 0},
        {"solver": "other"},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        ExtractSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, [], {}, {**ExtractSettings().to_dict(), "tvl1": 3}, {**ExtractSettings().to_dict(), "solver": []}])
def test_foreign_records_are_refused(value: object) -> None:
    with pytest.raises(ManifestError):
        ExtractSettings.from_dict(value)


def test_differing_settings_are_named_with_both_values() -> None:
    assert ExtractSettings().differences(ExtractSettings(short_side=128)) == ["short_side: 256, not 128"]
    assert "solver: gpu_flow, not strict" in IMPORTED.differences(ExtractSettings())
    assert "solver: strict, not gpu_flow" in ExtractSettings().differences(IMPORTED)
