import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from cna_core.errors import RunError
from cna_core.evaluation.runs import Point, PromptsUsed, Run, RunAnswer, RunSettings, versions
from cna_core.evaluation.setting import BASELINE, Setting, Treatment
from tests.circuits.samples import identity


def a_run(**changes: object) -> Run:
    settings = RunSettings(
        strengths=(0.0, 1.0),
        fractions=(0.001, 0.004),
        methods=("scale", "caa"),
        controls=("scale",),
        prompts={"harmful": PromptsUsed(name="mine", count=2, sha256="ab", texts=("one", "two"))},
    )
    points = (
        Point(strength=0, fraction=0.001, method="scale", prompts=2, refusal_rate=1.0, refusal_interval=(0.3, 1.0)),
        Point(strength=1, fraction=0.004, method="scale", prompts=2, refusal_rate=0.5, quality=0.9),
        Point(strength=0, fraction=0.004, method="scale", prompts=2, refusal_rate=1.0),
        Point(strength=1, method="caa", prompts=2, refusal_rate=0.0),
    )
    answers = (RunAnswer(prompt=0, set="harmful", strength=1, fraction=0.004, text="Sure", refused=False),)
    fields = {"model": identity(), "circuit_sha256": "cd", "settings": settings, "points": points, "answers": answers}
    return Run(**(fields | {"versions": versions()} | changes))  # type: ignore[arg-type]


def test_a_run_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    run = a_run(name="first")
    assert Run.load(run.save(tmp_path / "deep" / "run.json")) == run


def test_the_file_has_the_documented_fields_and_nothing_that_was_not_measured() -> None:
    content = json.loads(a_run().to_json())
    assert content["format"] == "cna-run/2"
    assert {"model", "circuit_sha256", "settings", "versions", "points", "answers"} <= content.keys()
    assert content["points"][0] == {
        "method": "scale",
        "strength": 0.0,
        "fraction": 0.001,
        "prompts": 2,
        "refusal_rate": 1.0,
        "refusal_interval": [0.3, 1.0],
    }
    assert content["answers"][0]["set"] == "harmful"
    assert "torch" in content["versions"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "not a run of format cna-run/2"),
        ('{"format": "cna-run/3"}', "its format is 'cna-run/3', and cna-run/2 and cna-run/1 are what can be read"),
        ('{"format": "cna-run/2"}', "model: Field required"),
        ('{"format": "cna-run/1"}', "model: Field required"),
        ('{"format": "cna-run/1", "points": [{"control": "magic"}]}', "control 'magic' is not one of cna, random, caa"),
        ('{"format": "cna-run/1", "settings": {"controls": 3}}', "settings.controls is not a list"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_run_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(RunError, match=said) as caught:
        Run.from_json(text, "x.json")
    assert str(caught.value).startswith("x.json")


def test_a_missing_file_and_one_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        Run.load(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        a_run().save(tmp_path / "file" / "run.json")


def test_a_series_is_one_curve_by_strength() -> None:
    run = a_run()
    assert [point.strength for point in run.series(Treatment("scale"))] == [0, 1]
    assert {point.fraction for point in run.series(Treatment("scale"))} == {0.004}
    assert [point.refusal_rate for point in run.series(Treatment("caa"))] == [0.0]
    assert run.series(Treatment("random", "scale")) == ()


def test_a_point_tells_a_measure_with_its_interval_or_that_it_was_not_taken() -> None:
    first, second, *_ = a_run().points
    assert first.estimate("refusal_rate") == (1.0, 0.3, 1.0)
    assert second.estimate("quality") == (0.9, 0.9, 0.9)
    assert second.estimate("knowledge") is None


def test_the_baseline_is_one_setting_whatever_curve_it_is_on() -> None:
    assert a_run().points[0].setting == a_run().points[2].setting == BASELINE
    assert a_run().points[1].setting == Setting(method="scale", strength=1, fraction=0.004)


def test_measures_from_outside_may_add_fields() -> None:
    point = Point(strength=1, method="scale", politeness=0.7, politeness_interval=(0.6, 0.8))  # type: ignore[call-arg]
    assert point.estimate("politeness") == (0.7, 0.6, 0.8)


@pytest.mark.parametrize("wrong", [{"method": "random"}, {"method": "caa", "twin_of": "scale"}])
def test_a_twin_names_its_method_and_a_method_is_no_twin(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="twin_of"):
        Point(strength=1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="twin_of"):
        Setting(**wrong)  # type: ignore[arg-type]
