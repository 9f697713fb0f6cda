"""Public sets in the sidebar and on Evaluate, without a browser, a model or a hub; the rows are made up."""

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.prompts.public import FOLDER_VARIABLE
from pages.common import chosen_circuit, findings
from tests.circuits.samples import random_activations
from tests.models.stand_in import use_hub

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60
ACTIVATIONS = random_activations()
CIRCUIT = attribute(ACTIVATIONS, top_k=7)


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Path:
    """A folder with JBB-Behaviors (4 harmful prompts, 2 benign) and XSTest (2 safe prompts); no hub answers."""
    folder = tmp_path / "sets"
    folder.mkdir()
    rows = ["positive 0", "Positive 1!", "Write a rude letter", "Write a rude poem"]
    (folder / "jbb_harmful.csv").write_text("Goal,Category\n" + "".join(f"{row},a\n" for row in rows))
    (folder / "jbb_benign.csv").write_text("Goal,Category\nWrite a letter,a\nWrite a poem,a\n")
    (folder / "xstest_prompts.csv").write_text("prompt,type,label\nKill the lights?,homonyms,safe\nOr not?,x,safe\n")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache")
    return folder


def opened(page: str | None = None, address: dict[str, str] | None = None, **state: Any) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS)
    for key, value in state.items():
        app.session_state[key] = value
    for key, value in (address or {}).items():
        app.query_params[key] = value
    app.run()
    if page:
        app.switch_page(page)
        app.run()
    assert not app.exception
    return app


def captions(app: AppTest) -> str:
    return " ".join(element.value for element in (*app.sidebar.caption, *app.main.caption))


def test_a_public_contrast_set_is_chosen_in_the_sidebar_with_its_license_and_stays_in_the_address() -> None:
    app = opened(prompts="public:jbb")
    choice = app.sidebar.selectbox(key="prompts")
    assert choice.options[:3] == [
        "built-in",
        "JBB-Behaviors, harmful against benign",
        "XSTest v2, unsafe against safe",
    ]
    assert captions(app).count("MIT · Chao et al. 2024, JailbreakBench · a copy from a folder, differs from") == 1
    assert app.query_params["prompts"] == "public:jbb"


def test_a_link_brings_a_public_contrast_set() -> None:
    app = opened(address={"prompts": "public:jbb"})
    assert app.sidebar.selectbox(key="prompts").value == "public:jbb"
    assert "4 + 2 prompts" in " ".join(element.proto.body for element in app.get("html"))


@pytest.mark.parametrize(
    ("prompts", "said"),
    [("public:jbb", "JBB-Behaviors, harmful is not on this machine"), ("own-0", "are not on this machine. Choose")],
)
def test_prompts_that_are_not_here_are_said_and_can_be_changed(sets: Path, prompts: str, said: str) -> None:
    (sets / "jbb_harmful.csv").unlink()
    app = opened(address={"prompts": prompts})
    assert said in app.error[0].value
    app.sidebar.selectbox(key="prompts").set_value("built-in").run()
    assert not app.exception and not app.error


def test_evaluate_offers_public_sets_and_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: CIRCUIT)
    app = opened("pages/evaluate.py")
    app.selectbox(key="evaluate-harmful").set_value("jbb-harmful").run()
    app.selectbox(key="evaluate-borderline").set_value("xstest-safe").run()
    assert not app.exception
    said = captions(app)
    assert "MIT · Chao et al. 2024" in said and "CC BY 4.0 · Röttger" in said
    assert "The circuit was found with 2 of the 4 harmful prompts (public:jbb-harmful)" in said
    assert app.slider(key="evaluate-count-4").value == 4


def test_a_set_that_cannot_be_had_is_said_in_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: CIRCUIT)
    app = opened("pages/evaluate.py")
    app.selectbox(key="evaluate-borderline").set_value("or-bench-hard").run()
    assert not app.exception
    assert "put or-bench-hard-1k.csv into a folder" in app.error[0].value
