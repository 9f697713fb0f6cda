from pathlib import Path

import pytest

from cna_core.errors import RunError
from cna_core.evaluation.measures import refusal_rate
from cna_core.evaluation.refusal import Verdict
from cna_core.evaluation.runs import Point
from cna_core.evaluation.setting import Setting
from cna_core.evaluation.working_point import search_working_point, working_point_of
from cna_core.models.loaded import LoadedModel
from tests.evaluation.sweeping import BENIGN, HARMFUL, small_circuit, small_model, small_sweep
from tests.evaluation.test_runs import a_run


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


def a_point(
    strength: float, refusal: float, kl: float | None, fraction: float = 0.001, twin_of: str | None = None
) -> Point:
    method = "random" if twin_of else "scale"
    at = {"method": method, "twin_of": twin_of, "strength": strength, "fraction": fraction}
    return Point(**at, prompts=10, refusal_rate=refusal, benign_kl=kl)  # type: ignore[arg-type]


def test_the_gentlest_point_that_halves_refusal_is_chosen() -> None:
    points = (
        a_point(0, 0.8, 0),
        a_point(0.5, 0.5, 0.01),  # gentler, but not half
        a_point(1.0, 0.4, 0.05),
        a_point(0.5, 0.2, 0.03, fraction=0.004),
        a_point(1.0, 0.0, 0.9, fraction=0.004),
        a_point(1.0, 0.0, 0.001, twin_of="scale"),  # controls are no circuits to work with
        a_point(1.0, 0.0, 0.002).model_copy(update={"circuit": "effect", "fraction": None}),  # the run keeps the first
    )
    settings = a_run().settings.model_copy(update={"others": {"effect": "0" * 64}})
    found = working_point_of(a_run(points=points, settings=settings))
    assert found is not None
    assert found.setting == Setting(method="scale", strength=0.5, fraction=0.004)
    assert (found.refusal_rate, found.baseline_rate, found.benign_kl) == (0.2, 0.8, 0.03)


def test_exactly_half_is_enough_and_more_is_not() -> None:
    assert working_point_of(a_run(points=(a_point(0, 0.8, 0), a_point(1, 0.4, 0.1)))) is not None
    assert working_point_of(a_run(points=(a_point(0, 0.8, 0), a_point(1, 0.41, 0.1)))) is None


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ((), "baseline's refusals"),
        ((a_point(0, 0.0, 0), a_point(1, 0.0, 0.1)), "no refusal to halve"),
        ((a_point(0, 0.5, None), a_point(1, 0.0, None)), "needs KL on benign prompts"),
    ],
)
def test_a_run_that_does_not_say_enough_is_refused(points: tuple[Point, ...], said: str) -> None:
    with pytest.raises(RunError, match=said):
        working_point_of(a_run(points=points))


def test_the_search_finds_what_a_whole_sweep_would_choose(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_sweep(
        model,
        methods=("scale",),
        controls=False,
        max_new_tokens=4,
        strengths=(0, 0.5, 1, 1.5, 2, 3),
        fractions=(0.05, 0.125),
    )
    # The tiny model never refuses: call the baseline's answers refusals, so that whatever changes them "halves" them.
    refusals = {answer.text for answer in run.answers if answer.strength == 0}
    monkeypatch.setattr(refusal_rate, "detect_refusal", lambda text: Verdict(text in refusals, "because"))
    whole = small_sweep(
        model,
        methods=("scale",),
        controls=False,
        max_new_tokens=4,
        strengths=(0, 0.5, 1, 1.5, 2, 3),
        fractions=(0.05, 0.125),
        fresh=True,
    )
    expected = working_point_of(whole)
    assert expected is not None
    found = search_working_point(
        model,
        small_circuit(model),
        HARMFUL,
        BENIGN,
        (0.05, 0.125),
        (0.5, 1, 1.5, 2, 3),
        max_new_tokens=4,
        rows_per_batch=8,
    )
    assert found is not None
    assert found.setting == expected.setting
    assert found.refusal_rate == expected.refusal_rate
    assert found.benign_kl == pytest.approx(expected.benign_kl, rel=1e-4)


def test_a_search_that_finds_nothing_says_so(
    model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_rate, "detect_refusal", lambda text: Verdict(True, "always"))
    assert search_working_point(model, small_circuit(model), HARMFUL, BENIGN, (0.05,), (1.0,), max_new_tokens=2) is None


def test_a_model_that_does_not_refuse_has_no_working_point(model: LoadedModel, empty_cache: Path) -> None:
    with pytest.raises(RunError, match="no refusal to halve"):
        search_working_point(model, small_circuit(model), HARMFUL, BENIGN, (0.05,), (1.0,), max_new_tokens=2)
