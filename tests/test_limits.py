"""CNA_STRENGTH_LIMIT holds wherever a strength can be asked for."""

import numpy as np
import pytest

from cna_core.decoding.lanes import Lane
from cna_core.errors import ModelError, StrengthError
from cna_core.evaluation.gate_meter import METER_STRENGTHS
from cna_core.evaluation.setting import settings_of
from cna_core.limits import FARTHEST, REMOTE_CODE_VARIABLE, VARIABLE, allowed, require_allowed, strength_limit
from cna_core.models.load import load_model


@pytest.fixture
def only_amplifying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")


def test_without_the_variable_every_strength_to_the_farthest_is_allowed() -> None:
    assert strength_limit() == FARTHEST
    require_allowed(-FARTHEST, 0.0, FARTHEST, np.array([1.0, 2.0]))


@pytest.mark.parametrize("value", ["much", "-1", "101", "nan"])
def test_a_limit_that_is_no_number_from_0_to_100_is_said(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(StrengthError, match=VARIABLE):
        require_allowed(0.0)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -101.0, np.array([0.0, np.nan])])
def test_what_is_no_strength_is_refused(strength: float) -> None:
    with pytest.raises(StrengthError, match="between"):
        require_allowed(strength)


@pytest.mark.usefixtures("only_amplifying")
def test_with_limit_0_a_lane_is_the_models_own_or_amplified() -> None:
    for strength in (-1.0, 0.0, np.array([-1.0, 0.0])):
        assert Lane("hello", strength).strength is strength
    for strength in (0.01, np.array([-1.0, 0.5])):
        with pytest.raises(StrengthError, match=VARIABLE):
            Lane("hello", strength)


@pytest.mark.usefixtures("only_amplifying")
def test_with_limit_0_a_sweep_measures_no_strength_above_0() -> None:
    assert max(setting.strength for setting in settings_of([-1, 0], [0.01], ["scale", "caa"])) == 0
    with pytest.raises(StrengthError, match=VARIABLE):
        settings_of([0, 1], [0.01], ["scale"])


@pytest.mark.usefixtures("only_amplifying")
def test_with_limit_0_the_meter_ends_at_0() -> None:
    assert allowed(METER_STRENGTHS) == (-1.0, -0.75, -0.5, -0.25, 0.0)


def test_where_it_is_forbidden_no_model_brings_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REMOTE_CODE_VARIABLE, "0")
    with pytest.raises(ModelError, match=REMOTE_CODE_VARIABLE):
        load_model("smollm2-135m-instruct", trust_remote_code=True)
