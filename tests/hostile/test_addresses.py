"""Addresses that somebody else made: a view or one sentence on the page, and no work starts."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.common import findings, keys, measured_effects
from tests.circuits.samples import random_activations
from tests.hostile.inputs import NAMES as ALL_NAMES
from tests.hostile.inputs import shortly
from tests.hostile.outcome import checked

NAMES = [name for name in ALL_NAMES if name.encode(errors="ignore").decode() == name]
"""An address is UTF-8, so it holds no halves of characters."""
APP = Path(__file__).resolve().parents[2] / "app.py"
PAGES = ("gate", "neurons", "chat", "evaluate", "compare", "method")
WHERE = (
    *("size", "leave_out", "skip", "threshold", "dtype", "quantization", "triggered", "score", "strength", "method"),
    *("neuron", "circuit", "run", "found", "quantity", "layers", "neurons", "acting", "trust_remote_code", "x"),
)
"""Names of parameters: those that pages read, and two that none reads."""


def opened(page: str = "gate", **parameters: str) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in parameters.items():
        app.query_params[name] = value
    if page != "gate":
        app.switch_page(f"pages/{page}.py")
    return app.run()


def said(app: AppTest) -> None:
    """No traceback is shown; errors are sentences."""
    assert not app.exception, app.exception[0].message
    for element in app.error:
        checked(element.value)


@pytest.fixture(autouse=True)
def starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that costs fails the test."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a link started work")

    for place in (findings, measured_effects):
        monkeypatch.setattr(place, "start", started)


@pytest.mark.parametrize("value", NAMES, ids=shortly)
def test_a_link_with_this_value_everywhere_shows_a_view(value: str) -> None:
    page = PAGES[NAMES.index(value) % len(PAGES)]
    said(opened(page, **dict.fromkeys(WHERE, value)))


@pytest.mark.parametrize(
    ("neuron", "layers"),
    [
        ("0.99999", "9-1"),
        ("999999999.0", "999999999-999999999"),
        ("9" * 5000 + ".1", "9" * 5000 + "-1"),
        ("-1.0", "--"),
        ("٣.٣", "٣-٣"),
        ("1.²", "²-³"),
        ("0.0.0", "1-2-3"),
        ("1e3.1", "NaN-1"),
    ],
    ids=shortly,
)
def test_a_link_to_a_neuron_or_layers_that_are_not_there_shows_a_view(
    neuron: str, layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(random_activations(), 1.5))
    where = {"neuron": neuron, "layers": layers, "neurons": layers, "quantity": layers, "acting": neuron}
    said(opened(**where))


@pytest.mark.parametrize("value", NAMES[::3], ids=shortly)
def test_a_link_to_this_model_and_these_prompts_shows_a_view(value: str) -> None:
    said(opened(model=value, found="1", score="attribution-patching"))
    said(opened(prompts=value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (keys.IN_ADDRESS_NEURON, "0.0"),
        (keys.IN_ADDRESS_NEURON, "999999999999.1"),
        (keys.IN_ADDRESS_NEURON, "٣.٣"),
        (keys.IN_ADDRESS_NEURON, "²." + "9" * 5000),
        ("layers", "9" * 5000 + "-1"),
        ("layers", "²-³"),
        ("strength", "1e999"),
        ("strength", "-100"),
        ("size", "0"),
        ("skip", "-1"),
        ("threshold", "NaN"),
        ("prompts", "public:"),
        ("prompts", "public:jbb"),
        ("prompts", "public:../../x"),
        ("prompts", "own-../../x"),
        ("prompts", "own-" + "0" * 12),
        ("run", "0" * 16),
        ("model", "a/b@main"),
    ],
    ids=shortly,
)
def test_a_link_with_this_value_in_this_place_shows_a_view(name: str, value: str) -> None:
    said(opened(**{name: value}))
