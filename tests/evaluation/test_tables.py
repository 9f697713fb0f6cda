import pytest

from cna_core.evaluation.runs import Point, RunAnswer
from cna_core.evaluation.setting import Setting
from cna_core.evaluation.tables import answers_beside, markdown_table, points_table, runs_beside, steered_settings
from tests.evaluation.test_runs import a_run

ABLATED = Setting(method="scale", strength=1.0, fraction=0.004)


def an_answer(prompt: int, refused: bool, setting: Setting | None = None) -> RunAnswer:
    chosen = setting or Setting()
    return RunAnswer(
        prompt=prompt,
        set="harmful",
        strength=chosen.strength,
        method=chosen.method,
        twin_of=chosen.twin_of,
        fraction=chosen.fraction,
        text="sorry" if refused else "sure",
        refused=refused,
    )


RUN = a_run(
    answers=(
        an_answer(0, True),
        an_answer(1, True),
        an_answer(2, False),
        an_answer(0, False, ABLATED),
        an_answer(1, True, ABLATED),
        an_answer(2, True, ABLATED),
        an_answer(0, True, Setting(method="caa", strength=1.0)),
    )
)


@pytest.mark.parametrize(("direction", "prompts"), [("all", [0, 2]), ("answered now", [0]), ("refused now", [2])])
def test_flipped_answers_stand_beside_the_baselines(direction: str, prompts: list[int]) -> None:
    table = answers_beside(RUN, ABLATED, direction=direction)  # type: ignore[arg-type]
    assert table["prompt"].tolist() == prompts


def test_a_row_has_the_request_and_both_answers() -> None:
    row = answers_beside(RUN, ABLATED).iloc[0]
    assert row.to_dict() == {
        "prompt": 0,
        "request": "one",
        "baseline": "sorry",
        "steered": "sure",
        "before": "refused",
        "after": "answered",
    }


def test_prompts_whose_verdict_stayed_are_shown_on_demand() -> None:
    assert answers_beside(RUN, ABLATED, only_flipped=False)["prompt"].tolist() == [0, 1, 2]
    assert answers_beside(RUN, Setting("random", 1.0, 0.001, twin_of="scale")).empty


def test_settings_with_answers_are_listed_once_without_the_baseline() -> None:
    assert steered_settings(RUN) == [ABLATED, Setting(method="caa", strength=1.0)]


def test_the_table_has_a_row_a_point_and_columns_for_what_was_measured() -> None:
    points = (
        Point(strength=1, fraction=0.004, method="scale", prompts=9, refusal_rate=0.5, refusal_interval=(0.4, 0.6)),
        Point(strength=1, method="caa", prompts=9, refusal_rate=0.1, knowledge=0.3, politeness=0.5),  # type: ignore[call-arg]
    )
    table = points_table(a_run(points=points))
    assert table["refused"].tolist() == [0.5, 0.1]
    assert table["refused, low"].tolist() == [0.4, 0.1]
    assert table["circuit, %"].tolist()[0] == 0.4
    assert {"knowledge", "politeness"} <= set(table.columns)
    assert "perplexity" not in table.columns


def test_two_runs_stand_side_by_side_with_paired_changes() -> None:
    points = (
        Point(strength=1, method="caa", refusal_rate=1.0),
        Point(strength=1, fraction=0.004, method="scale", refusal_rate=2 / 3),
    )
    other_answers = (an_answer(0, False, ABLATED), an_answer(1, False, ABLATED), an_answer(2, True, ABLATED))
    first = RUN.model_copy(update={"points": points})
    second = a_run(
        answers=other_answers, points=(Point(strength=1, fraction=0.004, method="scale", refusal_rate=1 / 3),)
    )
    [row] = runs_beside(first, second).to_dict("records")
    assert (row["method"], row["circuit, %"], row["strength"]) == ("CNA", 0.4, 1.0)
    assert row["change"] == pytest.approx(-1 / 3)
    assert row["change, low"] < -1 / 3 < row["change, high"]


def test_runs_on_other_prompts_are_not_paired() -> None:
    used = RUN.settings.prompts["harmful"].model_copy(update={"sha256": "other"})
    settings = RUN.settings.model_copy(update={"prompts": {"harmful": used}})
    other = RUN.model_copy(update={"settings": settings})
    assert runs_beside(RUN, other)["change"].isna().all()


def test_the_markdown_table_has_the_baseline_once_and_a_row_for_each_other_point() -> None:
    base = {"refusal_rate": 0.5, "refusal_interval": (0.4, 0.6), "knowledge_change": 0.0}
    base |= {"knowledge": 0.4, "knowledge_interval": (0.3, 0.5)}
    points = (
        Point(strength=0, fraction=0.001, method="scale", **base),  # type: ignore[arg-type]
        Point(strength=0, fraction=0.004, method="scale", **base),  # type: ignore[arg-type]
        Point(
            strength=-1,
            fraction=0.004,
            method="scale",
            refusal_rate=0.75,
            refusal_interval=(0.6, 0.9),
            knowledge=0.38,
            knowledge_change=-0.02,
            knowledge_change_interval=(-0.05, 0.01),
        ),
        Point(strength=1, method="caa", knowledge_change=0.01, refusal_rate=0.0, refusal_interval=(0.0, 0.1)),
    )
    assert markdown_table(a_run(points=points)).splitlines() == [
        "| method | circuit | strength | refused | knowledge, and change in points |",
        "| --- | --- | --- | --- | --- |",
        "| baseline |  | 0 | 50 % (40–60) | 40 % (30–50) |",
        "| CNA | 0.4 % | −1 | 75 % (60–90) | 38 %, −2.0 (−5.0 to +1.0) |",
        "| CAA |  | 1 | 0 % (0–10) | +1.0 (+1.0 to +1.0) |",
    ]
