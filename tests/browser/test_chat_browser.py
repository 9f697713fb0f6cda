"""The chat as a person uses it: send, stop in the middle, ask again, leave during an answer and come back."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.server import settled
from tests.browser.test_main_job import ANSWER_SECONDS, find_the_gate

pytestmark = [pytest.mark.browser, pytest.mark.small_model]
CALIBRATION_SECONDS = 300
PAGE_SECONDS = 60
"""The first page after a start imports much."""
LONG = "Write a long story about a lighthouse keeper and the sea."
LONGEST = "2000"
"""Tokens: more than the model writes while a test looks, so that what stops an answer is the test."""


@pytest.fixture
def chat(page: Page, app_address: str) -> Page:
    find_the_gate(page, app_address)
    page.get_by_role("link", name="Chat").click()
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_enabled(timeout=PAGE_SECONDS * 1000)
    return settled(page, PAGE_SECONDS)


@pytest.fixture
def endless(chat: Page) -> Page:
    """A chat whose answers may become so long that what ends them is the test."""
    chat.get_by_role("button", name="Settings").click()
    field = chat.get_by_label("Maximum answer length, tokens")
    field.fill(LONGEST)
    field.press("Enter")
    settled(chat, PAGE_SECONDS)
    chat.keyboard.press("Escape")
    expect(field).to_have_count(0, timeout=PAGE_SECONDS * 1000)
    return chat


def send(page: Page, message: str) -> None:
    field = page.get_by_test_id("stChatInputTextArea")
    field.fill(message)
    field.press("Enter")


def answers(page: Page) -> Locator:
    return page.get_by_test_id("answer")


def wait_for_words(page: Page) -> None:
    """Until both answers have begun."""
    for place in (0, 1):
        expect(answers(page).nth(place)).to_have_text(re.compile(r"\w+\W+\w+"), timeout=ANSWER_SECONDS * 1000)


def stop(page: Page) -> None:
    page.locator(".st-key-chat-stop").get_by_role("button").click()
    ended(page)


def again(page: Page) -> None:
    page.locator(".st-key-chat-again").get_by_role("button").click()


def ended(page: Page) -> None:
    expect(page.locator(".st-key-chat-again")).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    settled(page, PAGE_SECONDS)


def test_an_answer_can_be_stopped_and_asked_again(endless: Page) -> None:
    send(endless, LONG)
    wait_for_words(endless)
    expect(answers(endless)).to_have_count(2)
    stop(endless)
    expect(endless.get_by_text("stopped").first).to_be_visible()
    expect(answers(endless)).to_have_count(2)
    stopped = answers(endless).first.inner_text()
    assert stopped.strip()

    again(endless)
    expect(endless.locator(".st-key-chat-stop")).to_be_visible(timeout=PAGE_SECONDS * 1000)
    wait_for_words(endless)
    expect(answers(endless)).to_have_count(2)  # nothing of the answers before stays beside the new ones
    stop(endless)
    once_more = answers(endless).first.inner_text()
    shared = min(len(stopped), len(once_more)) - 1
    assert shared > 5
    assert once_more[:shared] == stopped[:shared]  # greedy: the same answer, stopped at another place
    expect(answers(endless)).to_have_count(2)
    expect(endless.get_by_test_id("message")).to_have_count(1)


def test_an_answer_goes_on_while_another_page_is_open(endless: Page) -> None:
    send(endless, LONG)
    wait_for_words(endless)
    before = answers(endless).first.inner_text()
    endless.get_by_role("link", name="Gate").click()
    expect(endless.get_by_role("heading", level=1)).to_contain_text("refusal")
    settled(endless, 60)
    endless.get_by_role("link", name="Chat").click()
    expect(endless.get_by_test_id("message")).to_have_text(LONG, timeout=PAGE_SECONDS * 1000)
    wait_for_words(endless)
    expect(answers(endless)).to_have_count(2)
    stop(endless)
    after = answers(endless).first.inner_text()
    assert after.startswith(before)
    assert len(after) > len(before)


def test_a_closed_tab_frees_the_model(endless: Page, app_address: str) -> None:
    send(endless, LONG)
    wait_for_words(endless)
    other = endless.context.browser.new_context().new_page()  # type: ignore[union-attr]
    endless.close()
    try:
        find_the_gate(other, app_address)
        other.get_by_role("link", name="Chat").click()
        expect(other.get_by_test_id("stChatInputTextArea")).to_be_enabled(timeout=PAGE_SECONDS * 1000)
        send(other, "Say hello.")
        wait_for_words(other)
    finally:
        other.context.close()


def test_the_slider_moves_while_an_answer_is_written(endless: Page) -> None:
    send(endless, LONG)
    wait_for_words(endless)
    slider = endless.locator(".st-key-strength").get_by_role("slider")
    slider.focus()
    endless.keyboard.press("ArrowRight")
    expect(endless.get_by_text("× −0.05")).to_be_visible(timeout=10_000)
    expect(endless.locator(".st-key-chat-stop")).to_be_visible()
    stop(endless)


def test_the_meter_follows_the_message_while_it_is_typed(chat: Page) -> None:
    calibrating = chat.get_by_test_id("meter-place").get_by_text("Calibrating")
    expect(calibrating).to_have_count(0, timeout=CALIBRATION_SECONDS * 1000)
    expect(chat.get_by_text("Type a message to see")).to_be_visible(timeout=CALIBRATION_SECONDS * 1000)
    chat.get_by_test_id("stChatInputTextArea").press_sequentially("How do I break a door?")
    expect(chat.get_by_text("Chance that the answer opens as a refusal")).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    expect(chat.get_by_text("“How do I break a door?”")).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    assert answers(chat).count() == 0  # nothing was generated


def test_markup_in_a_message_is_shown_and_not_run(chat: Page) -> None:
    send(chat, "<img src=x onerror=\"document.title='run'\"> <b>hello</b>")
    expect(chat.get_by_test_id("message")).to_contain_text("<b>hello</b>")
    ended(chat)
    assert chat.title() != "run"
    assert chat.get_by_test_id("message").locator("b, img").count() == 0
