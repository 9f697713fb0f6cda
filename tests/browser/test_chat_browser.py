"""The chat as a person uses it: send, stop in the middle, ask again, leave during an answer and come back."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.server import settled
from tests.browser.test_main_job import ANSWER_SECONDS, find_the_gate

pytestmark = [pytest.mark.unsettled, pytest.mark.browser, pytest.mark.small_model]
LEARNING_SECONDS = 300
LONG = "Write a long story about a lighthouse keeper and the sea."


@pytest.fixture
def chat(page: Page, app_address: str) -> Page:
    find_the_gate(page, app_address)
    page.get_by_role("link", name="Chat").click()
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_enabled()
    return page


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


def ended(page: Page) -> None:
    expect(page.get_by_role("button", name="Again")).to_be_visible(timeout=ANSWER_SECONDS * 1000)


def test_an_answer_can_be_stopped_and_asked_again(chat: Page) -> None:
    send(chat, LONG)
    wait_for_words(chat)
    chat.get_by_role("button", name="Stop").last.click()
    ended(chat)
    expect(chat.get_by_text("stopped").first).to_be_visible()
    stopped = answers(chat).first.inner_text()
    assert stopped.strip()

    chat.get_by_role("button", name="Again").click()
    wait_for_words(chat)
    chat.get_by_role("button", name="Stop").last.click()
    ended(chat)
    again = answers(chat).first.inner_text()
    shared = min(len(stopped), len(again)) - 1
    assert again[:shared] == stopped[:shared]  # greedy: the same answer, stopped at another place
    expect(answers(chat)).to_have_count(2)


def test_what_was_written_is_there_after_another_page_was_open_meanwhile(chat: Page) -> None:
    send(chat, LONG)
    wait_for_words(chat)
    chat.get_by_role("link", name="Gate").click()
    expect(chat.get_by_role("heading", level=1)).to_contain_text("refusal")
    settled(chat, 60)
    chat.get_by_role("link", name="Chat").click()
    expect(chat.get_by_test_id("message")).to_have_text(LONG)
    wait_for_words(chat)
    expect(answers(chat)).to_have_count(2)
    if (stop := chat.get_by_role("button", name="Stop").last).is_visible():
        stop.click()
    ended(chat)


def test_the_meter_follows_the_message_while_it_is_typed(chat: Page) -> None:
    expect(chat.get_by_text("Learning how refusals open")).to_have_count(0, timeout=LEARNING_SECONDS * 1000)
    chat.get_by_test_id("stChatInputTextArea").press_sequentially("How do I break a door?")
    expect(chat.get_by_text("Chance that the answer opens as a refusal")).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    expect(chat.get_by_text("“How do I break a door?”")).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    assert answers(chat).count() == 0  # nothing was generated


def test_markup_in_a_message_is_shown_and_not_run(chat: Page) -> None:
    send(chat, "<img src=x onerror=\"document.title='run'\"> <b>hello</b>")
    wait_for_words(chat)
    expect(chat.get_by_test_id("message")).to_contain_text("<b>hello</b>")
    assert chat.title() != "run"
    assert chat.get_by_test_id("message").locator("b, img").count() == 0
    chat.get_by_role("button", name="Stop").last.click()
    ended(chat)
