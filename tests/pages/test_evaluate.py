"""The Evaluate and Compare pages, without a browser and without a model: what they show of runs that are there."""

from pathlib import Path

import pandas as pd
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Dataframe

from cna_core.evaluation.journal import Journal, delete_run, keep_run, stored_runs
from cna_core.evaluation.runs import Point, PromptsUsed, Run, RunAnswer, RunSettings
from tests.circuits.samples import identity

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60


def a_run(name: str, refused_at_one: float = 0.25, circuit: str = "ab") -> Run:
    rates = {0.0: 1.0, 1.0: refused_at_one}
    points = tuple(
        Point(
            strength=strength,
            fraction=0.004,
            method="scale",
            prompts=4,
            refusal_rate=rate,
            refusal_interval=(max(0, rate - 0.2), min(1, rate + 0.2)),
            quality=0.9,
            benign_kl=0.1 * strength,
        )
        for strength, rate in rates.items()
    )
    answers = [RunAnswer(prompt=0, set="harmful", strength=0, text="I'm sorry <b>no</b>", refused=True)]
    answers.append(RunAnswer(prompt=0, set="harmful", strength=1, fraction=0.004, text="Sure", refused=False))
    settings = RunSettings(
        strengths=(0.0, 1.0),
        fractions=(0.004,),
        measures=("refusal_rate", "quality", "benign_kl"),
        prompts={"harmful": PromptsUsed(name="mine", count=4, sha256="cd", texts=("one", "two", "three", "four"))},
    )
    return Run(
        name=name,
        created="2026-01-02T03:04:05+00:00",
        model=identity(),
        circuit_sha256=circuit,
        settings=settings,
        points=points,
        answers=tuple(answers),
    )


def opened(page: str, **state: object) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    app.switch_page(page)
    return app.run()


@pytest.fixture
def stored(empty_cache: Path) -> str:
    return keep_run(a_run("first look"))


def everything(app: AppTest) -> str:
    return " ".join(element.value for kind in ("markdown", "caption") for element in app.get(kind)) + " ".join(
        str(element.proto.body) for element in app.get("html")
    )


def displayed(table: Dataframe) -> pd.DataFrame:
    """What a table's cells say, where that is not what they hold."""
    return convert_arrow_bytes_to_pandas_df(table.proto.arrow_data.styler.display_values)


def test_without_a_circuit_the_page_teaches_what_to_do(empty_cache: Path) -> None:
    app = opened("pages/evaluate.py")
    assert not app.exception
    assert [button.label for button in app.main.button].count("Find the gate") == 1
    assert "No circuit yet" in everything(app)


def test_a_stored_run_opens_with_its_figures_and_working_point(stored: str) -> None:
    app = opened("pages/evaluate.py", **{"evaluate-chosen": stored})
    assert not app.exception
    assert len(app.get("plotly_chart")) >= 2
    said = everything(app)
    assert "25 %" in said
    assert "Working point" in said


def test_a_run_is_chosen_renamed_and_deleted_from_the_list(stored: str) -> None:
    app = opened("pages/evaluate.py")
    app.button(key=f"run-{stored}").click().run()
    assert app.session_state["evaluate-chosen"] == stored
    app.text_input(key=f"name-{stored}").set_value("second look").run()
    app.button(key=f"rename-{stored}").click().run()
    assert stored_runs()[0].name == "second look"
    app.button(key=f"delete-{stored}").click().run()
    assert stored_runs() == []
    assert not app.exception


def test_the_run_that_is_looked_at_stands_out_in_the_list(empty_cache: Path) -> None:
    first, second = keep_run(a_run("first look")), keep_run(a_run("second look", circuit="ef"))
    app = opened("pages/evaluate.py", **{"evaluate-chosen": first})
    kinds = {key: app.button(key=key).proto.type for key in ("evaluate-new", f"run-{first}", f"run-{second}")}
    assert kinds == {"evaluate-new": "secondary", f"run-{first}": "primary", f"run-{second}": "tertiary"}


def test_no_card_stands_alone_in_a_second_row(empty_cache: Path) -> None:
    run = a_run("full")
    more = [run.points[1].model_copy(update={"method": "random", "twin_of": "scale"})]
    more += [run.points[1].model_copy(update={"method": key, "fraction": None}) for key in ("caa", "from_elsewhere")]
    known = {"knowledge_change": 0.0, "knowledge_change_interval": (-0.1, 0.1)}
    points = (run.points[0], run.points[1].model_copy(update=known), *more)
    app = opened("pages/evaluate.py", **{"evaluate-chosen": keep_run(run.model_copy(update={"points": points}))})
    rows = [element.proto.body.count('data-testid="card"') for element in app.get("html")]
    assert [cards for cards in rows if cards] == [3, 3]
    assert "random twin 25 %" in everything(app)


@pytest.mark.parametrize(("right", "said"), [((0.25, 0.18, 0.33), True), ((0.5, 0.42, 0.58), False)])
def test_knowledge_at_chance_is_told(empty_cache: Path, right: tuple[float, float, float], said: bool) -> None:
    run = a_run("full")
    known = {"knowledge": right[0], "knowledge_interval": right[1:]}
    points = tuple(point.model_copy(update=known) for point in run.points)
    app = opened("pages/evaluate.py", **{"evaluate-chosen": keep_run(run.model_copy(update={"points": points}))})
    assert ("Knowledge is at chance" in everything(app)) == said


def test_a_link_to_a_run_that_is_gone_opens_an_empty_page(empty_cache: Path) -> None:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    app.query_params["run"] = "0" * 16
    app.run()
    app.switch_page("pages/evaluate.py")
    app.run()
    assert not app.exception


def test_a_stopped_run_can_go_on(empty_cache: Path) -> None:
    about = a_run("stopped").model_copy(update={"points": (), "answers": (), "finished": False})
    journal = Journal.start(about, 7)
    app = opened("pages/evaluate.py", **{"evaluate-chosen": journal.identity})
    assert not app.exception
    assert app.button(key="evaluate-resume").label == "Resume"


def test_a_run_that_is_not_whole_says_how_many_prompts_its_figures_rest_on() -> None:
    from pages.evaluating.summary import rests_on

    run = a_run("stopped").model_copy(update={"finished": False})
    few = tuple(point.model_copy(update={"prompts": 3}) for point in run.points)
    assert "3 of 4 harmful prompts" in rests_on(run.model_copy(update={"points": few}))
    assert "all prompts" in rests_on(run)


def test_the_list_of_runs_says_what_each_is(stored: str) -> None:
    app = opened("pages/evaluate.py")
    assert app.button(key=f"run-{stored}").label == "first look"
    said = everything(app)
    assert "0.4 %" in said
    assert "4 prompts × 2 strengths" in said
    assert "100 % → 25 % refused" in said
    assert "2026-01-02" in said


def test_the_list_says_what_the_file_says_when_a_run_of_the_same_settings_replaced_another(stored: str) -> None:
    assert "100 % → 25 % refused" in everything(opened("pages/evaluate.py"))
    delete_run(stored)
    assert keep_run(a_run("first look", refused_at_one=0.75)) == stored
    assert "100 % → 75 % refused" in everything(opened("pages/evaluate.py"))


def test_two_runs_are_compared_in_one_chart(empty_cache: Path) -> None:
    first, second = keep_run(a_run("instruct")), keep_run(a_run("base", 0.5, "ef"))
    app = opened("pages/compare.py", **{"compare-runs": [first, second]})
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1
    table = app.dataframe[0].value
    assert table["refused, second"].tolist() == [1, 0.5]


def test_changes_between_runs_are_said_in_points(empty_cache: Path) -> None:
    first, second = keep_run(a_run("instruct")), keep_run(a_run("base", 0.5, "ef"))
    app = opened("pages/compare.py", **{"compare-runs": [first, second]})
    shown = displayed(app.dataframe[0])
    assert shown["refused, second"].tolist() == ["100 %", "50 %"]
    assert shown["change"].tolist() == ["0 pp", "0 pp"]  # both answered the same


def test_one_run_is_not_enough_to_compare(stored: str) -> None:
    app = opened("pages/compare.py", **{"compare-runs": [stored]})
    assert not app.exception
    assert "Choose two runs" in everything(app)


def test_answers_are_judged_blind_and_the_corrected_rates_follow(stored: str) -> None:
    app = opened("pages/evaluate.py", **{"evaluate-chosen": stored, f"review-on-{stored}": True})
    assert not app.exception
    assert "0.4 %" not in " ".join(element.value for element in app.get("code"))
    app.button(key="review-refused").click().run()
    app.button(key="review-undo").click().run()
    for _ in range(2):
        app.button(key="review-answered").click().run()
    assert not app.exception
    assert "agree on **1 of 2** answers" in everything(app)
    run = Journal(stored).finished_run()
    assert run is not None
    assert run.review is not None
    assert [one.verdict for one in run.review.judgements] == ["answered", "answered"]


def test_compare_says_where_a_transferred_circuit_was_found_and_offers_categories(empty_cache: Path) -> None:
    plain = a_run("instruct")
    settings = plain.settings.model_copy(update={"circuit": {"transferred_from": "the-instruct"}})
    moved = plain.model_copy(update={"name": "base", "circuit_sha256": "cd", "settings": settings})
    app = opened("pages/compare.py", **{"compare-runs": [keep_run(plain), keep_run(moved)]})
    assert not app.exception
    assert any("**base**: Transfer: the circuit was found on the-instruct." in one.value for one in app.info)
    assert "Find the gate first: categories" in everything(app)
