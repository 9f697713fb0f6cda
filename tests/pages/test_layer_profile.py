"""The layer profile: measured once, and seen on both pages that show it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cna_core.circuits.attribution import attribute
from cna_core.errors import StoppedError
from cna_core.evaluation.profile import CausalProfile
from cna_core.models.host import host
from pages.common import chosen_circuit, findings, jobs, layer_profile
from pages.evaluating import work
from tests.circuits.samples import random_activations

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60
ACTIVATIONS = random_activations()
CIRCUIT = attribute(ACTIVATIONS, top_k=7)

pytestmark = pytest.mark.usefixtures("empty_cache")


def profile(prompts: int) -> CausalProfile:
    layers = np.unique(CIRCUIT.layers)
    chances, shape = np.full(prompts, 0.9), (prompts, len(layers))
    alone, others = np.full(shape, 0.5), np.full(shape, 0.8)
    counts = np.array([(CIRCUIT.layers == layer).sum() for layer in layers])
    random = np.full((*shape, 1), 0.85)
    return CausalProfile(layers, 1.0, chances, chances / 2, alone, others, random, counts, ACTIVATIONS.model.layers)


class Measurement:
    """Stands in for the measurement: notes what it is asked, shows one prompt, and ends when it may or is stopped."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []
        self.shown, self.may_end = threading.Event(), threading.Event()

    def __call__(
        self, _model: Any, _circuit: Any, prompts: list[str], _openings: Any, *, partial: Any, stop: Any, **_: Any
    ) -> CausalProfile:
        self.prompts.append(prompts)
        partial(profile(1))
        self.shown.set()
        while not self.may_end.wait(0.01):
            if stop.is_set():
                raise StoppedError("Stopped.")
        return profile(len(prompts))


@pytest.fixture
def measurement(monkeypatch: pytest.MonkeyPatch) -> Iterator[Measurement]:
    stand_in = Measurement()
    monkeypatch.setattr(findings, "finding", lambda: findings.Finding(ACTIVATIONS, 1.5))
    monkeypatch.setattr(chosen_circuit, "current", lambda: CIRCUIT)
    monkeypatch.setattr(layer_profile, "calibrate_openings", lambda *_, **__: None)
    monkeypatch.setattr(layer_profile, "causal_profile", stand_in)
    monkeypatch.setattr(host, "_load", lambda *_, **__: object())
    monkeypatch.setattr(work, "pace", lambda _circuit: None)
    jobs.registry.clear()
    layer_profile._profiles.clear()
    yield stand_in
    stand_in.may_end.set()
    host._make_room(0)


def opened(page: str) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS).run()
    app.switch_page(f"pages/{page}.py")
    return app.run()


def begun(page: str, measurement: Measurement) -> AppTest:
    app = opened(page)
    app.button(key="measure-layers").click().run()
    assert measurement.shown.wait(WAIT_SECONDS)
    return app.run()


def whole(app: AppTest) -> bool:
    shown = [element.value for element in app.caption]
    return any(f"over {layer_profile.PROMPTS}" in words.lower() for words in shown)


def end(measurement: Measurement) -> None:
    measurement.may_end.set()
    for thread in threading.enumerate():
        if thread.name == "job Layer profile":
            thread.join(WAIT_SECONDS)


@pytest.mark.parametrize(("first", "second"), [("gate", "evaluate"), ("evaluate", "gate")])
def test_what_one_page_measured_the_other_shows(measurement: Measurement, first: str, second: str) -> None:
    begun(first, measurement)
    end(measurement)
    app = opened(second)
    assert not app.exception
    assert whole(app)
    assert "measure-layers" not in [button.key for button in app.button]
    assert [len(prompts) for prompts in measurement.prompts] == [layer_profile.PROMPTS]


def test_a_second_page_joins_the_measurement_that_runs(measurement: Measurement) -> None:
    begun("gate", measurement)
    app = opened("evaluate")
    assert not app.exception
    assert [button.label for button in app.button].count("Stop") == 1
    assert len(measurement.prompts) == 1


def test_a_stopped_measurement_shows_as_far_as_it_came_and_can_be_begun_again(measurement: Measurement) -> None:
    app = begun("evaluate", measurement)
    next(button for button in app.button if button.label == "Stop").click().run()
    for thread in threading.enumerate():
        if thread.name == "job Layer profile":
            thread.join(WAIT_SECONDS)
    app = app.run()
    assert any("stopped. Finished work is saved" in info.value for info in app.info)
    assert any("Over 1 harmful prompts" in element.value for element in app.caption)
    assert "measure-layers" in [button.key for button in app.button]
