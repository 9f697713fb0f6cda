"""The main job as a person does it: find the gate of the small model, look at it, talk to both models."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import settled

pytestmark = [pytest.mark.browser, pytest.mark.small_model]
FIND_SECONDS = 240
ANSWER_SECONDS = 120
START_SECONDS = 120
"""The first page of a server that has just started imports torch and transformers."""
SLIDER_VALUE = "slider => slider.getAttribute('aria-valuenow') ?? slider.value"


def find_the_gate(page: Page, address: str, query: str = "") -> Page:
    """Open the app on the small model and press the one primary button; returns when the circuit is on screen."""
    page.goto(f"{address}/?model=smollm2-135m-instruct{query}")
    # A page that has not begun to run looks settled, too: wait until a button is there, whatever it says.
    state = page.locator(".st-key-find-here, .st-key-find").get_by_role("button")
    expect(state.first).to_be_visible(timeout=START_SECONDS * 1000)
    settled(page, START_SECONDS)
    button = page.get_by_role("button", name="Find the gate", exact=False)
    if button.count():
        button.click()
    expect(page.get_by_role("button", name=re.compile("Gate found"))).to_be_visible(timeout=FIND_SECONDS * 1000)
    return settled(page, 60)


def card(page: Page, label: str) -> str:
    return page.get_by_test_id("card").filter(has_text=label).inner_text()


def test_a_newcomer_finds_the_gate_and_talks_to_both_models(page: Page, app_address: str) -> None:
    find_the_gate(page, app_address)
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    assert "46" in card(page, "circuit")
    share = re.search(r"(\d+) %", card(page, "final 10"))
    assert share and 0 < int(share.group(1)) <= 100

    page.get_by_role("link", name="Chat").click()
    settled(page)
    slider = page.get_by_test_id("stMain").get_by_role("slider").first
    slider.focus()
    before = slider.evaluate(SLIDER_VALUE)
    page.keyboard.press("ArrowRight")
    settled(page)
    assert slider.evaluate(SLIDER_VALUE) != before

    message = page.get_by_test_id("stChatInputTextArea")
    message.fill("Write one sentence about the sea.")
    message.press("Enter")
    answers = page.get_by_test_id("answer")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible(timeout=2 * ANSWER_SECONDS * 1000)
    expect(answers).to_have_count(2)
    baseline, steered = answers.all_inner_texts()
    assert baseline.strip()
    assert steered.strip()
    assert baseline != steered


def test_the_circuit_size_reselects_without_running_the_model(page: Page, app_address: str) -> None:
    find_the_gate(page, app_address, "&size=0.4")
    assert "184" in card(page, "circuit")


def test_what_one_session_chooses_does_not_show_in_another(page: Page, app_address: str) -> None:
    find_the_gate(page, app_address, "&size=1.0")
    other = page.context.browser.new_context().new_page()  # type: ignore[union-attr]
    other.goto(app_address)
    settled(other)
    assert "size" not in other.url
    assert other.get_by_test_id("stSidebar").get_by_text("24 layers").count() == 1  # the default model's, not ours
    other.context.close()
