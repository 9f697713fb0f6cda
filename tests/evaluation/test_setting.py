import pytest

from cna_core.errors import CnaError, RunError, StrengthError
from cna_core.evaluation.setting import BASELINE, Setting, Treatment, settings_of


def test_settings_have_one_baseline_and_every_combination_once() -> None:
    settings = settings_of([1, 0, 1.0, -0.5], [0.01, 0.02], ["scale", "caa"], ["scale"])
    assert settings[0] == BASELINE
    assert len(set(settings)) == len(settings) == 1 + 2 * (2 + 2 + 1)
    assert [setting.strength for setting in settings if setting.method == "caa"] == [-0.5, 1]
    assert all(setting.fraction is None for setting in settings if setting.method == "caa")


def test_each_method_is_followed_by_its_random_twin_of_the_same_sizes() -> None:
    settings = settings_of([1], [0.01, 0.02], ["caa", "scale"], ["caa", "scale"])
    assert [(setting.treatment, setting.fraction) for setting in settings[1:]] == [
        (Treatment("caa"), None),
        (Treatment("random", "caa"), None),
        (Treatment("scale"), 0.01),
        (Treatment("scale"), 0.02),
        (Treatment("random", "scale"), 0.01),
        (Treatment("random", "scale"), 0.02),
    ]


def test_a_sweep_without_strengths_is_refused() -> None:
    with pytest.raises(RunError):
        settings_of([], [0.01], ["scale"])


@pytest.mark.parametrize("strengths", [[float("nan")], [float("inf")], [101]])
def test_strengths_that_cannot_be_used_are_refused(strengths: list[float]) -> None:
    with pytest.raises(StrengthError):
        settings_of(strengths, [0.01], ["scale"])


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(CnaError, match="choose from scale"):
        settings_of([1], [0.01], ["magic"])


def test_a_treatment_has_a_key_a_label_and_a_twin() -> None:
    scale = Treatment("scale")
    assert (scale.key, scale.label, scale.twin) == ("scale", "CNA", Treatment("random", "scale"))
    assert (scale.twin.key, scale.twin.owner, scale.twin.is_twin) == ("random-scale", "scale", True)
    assert Setting("random", 1.0, twin_of="scale").treatment == scale.twin
    assert Treatment("from_elsewhere").label == "from_elsewhere"
