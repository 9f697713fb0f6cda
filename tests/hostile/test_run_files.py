"""Run files that somebody else made: refused in one sentence, or usable by every table, chart, report and page."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from cna_core.evaluation.category_table import category_markdown
from cna_core.evaluation.journal import Journal, delete_run, keep_run, rename_run, stored_runs
from cna_core.evaluation.length_table import length_markdown
from cna_core.evaluation.measures.registry import measures_of
from cna_core.evaluation.review import answers_to_review, corrected_markdown
from cna_core.evaluation.runs import Run
from cna_core.evaluation.tables import answers_beside, markdown_table, runs_beside, steered_settings
from cna_core.evaluation.working_point import working_point_of
from cna_core.figures.dose_response import dose_response
from cna_core.figures.sweep_curves import curves_of
from cna_core.reports.run_report import run_report
from tests.hostile.inputs import MARKUP, NAMES, VALUES, shortly
from tests.hostile.outcome import outcome, refused
from tests.hostile.test_circuit_files import changed, json_values
from tests.pages.test_evaluate import a_run

APP = Path(__file__).resolve().parents[2] / "app.py"
REVIEW = {"seed": 1, "judgements": [{"answer": 0, "verdict": "refused"}, {"answer": 1, "verdict": "answered"}]}
GOOD: dict[str, Any] = json.loads(a_run("first").to_json()) | {"review": REVIEW, "notes": ["one"]}
GOOD["settings"]["prompts"]["harmful"]["categories"] = ["a", "a", "b", "b"]
GOOD["settings"]["circuit"] = {"top_k": 3, "transferred_from": "other"}
PLACES = (
    ("format",),
    ("name",),
    ("created",),
    ("model",),
    ("model", "layers"),
    ("model", "neurons_per_layer"),
    ("circuit_sha256",),
    ("settings", "strengths"),
    ("settings", "strengths", 0),
    ("settings", "fractions"),
    ("settings", "fractions", 0),
    ("settings", "methods"),
    ("settings", "controls"),
    ("settings", "measures"),
    ("settings", "measure_settings"),
    ("settings", "prompts"),
    ("settings", "prompts", "harmful"),
    ("settings", "prompts", "harmful", "count"),
    ("settings", "prompts", "harmful", "texts"),
    ("settings", "prompts", "harmful", "categories"),
    ("settings", "max_new_tokens"),
    ("settings", "temperature"),
    ("settings", "circuit"),
    ("settings", "circuit", "top_k"),
    ("settings", "circuit", "transferred_from"),
    ("settings", "others"),
    ("versions",),
    ("notes",),
    ("points",),
    ("points", 0, "method"),
    ("points", 0, "twin_of"),
    ("points", 0, "circuit"),
    ("points", 1, "strength"),
    ("points", 1, "fraction"),
    ("points", 1, "prompts"),
    ("points", 1, "refusal_rate"),
    ("points", 1, "refusal_interval"),
    ("points", 1, "quality"),
    ("points", 1, "benign_kl"),
    ("answers",),
    ("answers", 0, "prompt"),
    ("answers", 0, "set"),
    ("answers", 0, "text"),
    ("answers", 0, "refused"),
    ("answers", 1, "strength"),
    ("review",),
    ("review", "seed"),
    ("review", "judgements", 0, "answer"),
)
DRAWN = [
    ("settings", "strengths", 0),
    *(("points", 1, part) for part in ("strength", "refusal_rate", "refusal_interval", "quality", "benign_kl")),
]
"""Places of numbers that set the axes of a chart."""


def use(run: Run) -> None:
    """What pages and commands do with a run."""
    assert Run.from_json(run.to_json()) is not None
    tables = markdown_table(run), length_markdown(run), category_markdown(run), corrected_markdown(run)
    assert all(isinstance(table, str) for table in tables)
    answers_to_review(run, seed=run.review.seed if run.review else 0)
    for setting in steered_settings(run):
        answers_beside(run, setting)
    runs_beside(run, run)
    outcome(working_point_of, run)
    assert repr(run)
    identity = keep_run(run)
    assert identity in {stored.identity for stored in stored_runs()}
    assert Journal(identity).finished_run() is not None
    delete_run(identity)


def drawn(run: Run) -> None:
    """The run's main chart."""
    panels = [(measure, curves_of(run, measure.drawn_field())) for measure in measures_of(run) if measure.shown]
    if panels:
        strengths = run.settings.strengths
        dose_response(panels, strengths=(min(strengths), max(strengths))).to_json()


def page_of(run: Run) -> AppTest:
    """The Evaluate page with this run open."""
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.session_state["run"] = keep_run(run)
    app.run()
    app.switch_page("pages/evaluate.py")
    return app.run()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_any_value_in_any_place_is_refused_in_one_sentence_or_usable(place: tuple[str | int, ...]) -> None:
    for raw in VALUES:
        found = outcome(Run.from_json, changed(GOOD, place, raw))
        if isinstance(found, Run):
            use(found)
            if place in DRAWN:
                drawn(found)


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), value=json_values)
def test_no_json_value_gets_through_to_a_traceback(place: tuple[str | int, ...], value: Any) -> None:
    found = outcome(Run.from_json, changed(GOOD, place, json.dumps(value)))
    if isinstance(found, Run):
        use(found)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"\xff", b"PK\x03\x04", b"[" * 1_000_000, b'{"a":' * 200_000, b"9" * 100_000, b'{"format": []}'],
    ids=shortly,
)
def test_what_is_no_run_is_refused(text: bytes) -> None:
    refused(Run.from_json, text, "\u202eupload\x00.json")


def everywhere(name: str) -> dict[str, Any]:
    """A run with this name in every place where a name can be."""
    content = json.loads(json.dumps(GOOD))
    content |= {"name": name, "created": name, "circuit_sha256": name, "notes": [name]}
    content["versions"] = {name: name}
    content["model"] |= {"name": name, "revision": name, "dtype": name}
    content["settings"]["circuit"]["transferred_from"] = name
    content["settings"]["others"] = {name: name}
    content["settings"]["prompts"]["harmful"] |= {"name": name, "texts": [name] * 4, "categories": [name] * 4}
    content["points"][1] |= {"method": name, "circuit": name}
    content["answers"][1]["text"] = name
    return content


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_any_name_is_refused_or_usable_wherever_it_stands(name: str) -> None:
    found = outcome(Run.from_json, json.dumps(everywhere(name)))
    if isinstance(found, Run):
        use(found)


def test_a_report_holds_names_and_answers_as_text_only() -> None:
    for name in MARKUP:
        html = run_report(Run.from_json(json.dumps(everywhere(name))), with_answers=True).to_html()
        assert not any(tag in html for tag in ("<script>window", "<img src=x", "<a href='http"))


@pytest.mark.parametrize("name", ["<img src=x>![dot](http:&#47;&#47;198.51.100.7) [a](javascript:1) `b` :red[c]"])
def test_a_page_shows_names_as_they_are(name: str) -> None:
    app = page_of(Run.from_json(json.dumps(everywhere(name))))
    assert not app.exception
    for kind in ("markdown", "caption", "error", "info"):
        for element in app.get(kind):
            assert "![dot](" not in element.value.replace("\\[", "").replace("!\\", "!"), element.value
    assert not [button.label for button in app.button if "![dot](" in button.label]
    assert not any("<img" in str(element.proto.body) for element in app.get("html"))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"prompts": {}}},
        {"settings": {"fractions": []}},
        {"settings": {"fractions": [0.004, 0.5]}},
        {"settings": {"max_new_tokens": 0}},
        {"points": []},
        {"answers": []},
        {"created": ""},
    ],
    ids=shortly,
)
def test_a_page_shows_a_run_that_lacks_something(change: dict[str, Any]) -> None:
    content = json.loads(json.dumps(GOOD))
    for part, value in change.items():
        content[part] = {**content[part], **value} if isinstance(value, dict) else value
    found = outcome(Run.from_json, json.dumps(content))
    if isinstance(found, Run):
        assert not page_of(found).exception


@pytest.mark.parametrize("name", NAMES, ids=shortly)
def test_no_name_leads_to_a_folder_that_is_no_run(name: str) -> None:
    refused(Journal, name)
    refused(rename_run, "0" * 16, name)
    refused(delete_run, name)
