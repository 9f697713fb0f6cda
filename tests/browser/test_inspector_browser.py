"""The token inspector as a person uses it: a token, its card, another way on, and back; also by keyboard alone."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.server import settled
from tests.browser.test_chat_browser import PAGE_SECONDS, chat, ended, send
from tests.browser.test_main_job import ANSWER_SECONDS

__all__ = ["chat"]
pytestmark = [pytest.mark.browser, pytest.mark.small_model]
PLACE = 3


@pytest.fixture
def inspected(chat: Page) -> Page:
    """A chat with one short turn, token by token."""
    chat.get_by_role("button", name="Settings").click()
    field = chat.get_by_label("Maximum answer length, tokens")
    field.fill("16")
    field.press("Enter")
    settled(chat, PAGE_SECONDS)
    chat.keyboard.press("Escape")
    send(chat, "Say hello.")
    ended(chat)
    chat.get_by_text("Token by token").click()
    expect(answers(chat)).to_have_count(2, timeout=PAGE_SECONDS * 1000)
    return settled(chat, PAGE_SECONDS)


def answers(page: Page) -> Locator:
    return page.get_by_test_id("answer-tokens")


def token(page: Page, lane: int, place: int) -> Locator:
    return answers(page).nth(lane).locator(f"[data-place='{place}']")


def card(page: Page) -> Locator:
    return page.get_by_test_id("token-card")


def test_a_token_is_looked_at_another_one_chosen_and_left_again(inspected: Page) -> None:
    before = answers(inspected).nth(1).inner_text()
    token(inspected, 1, PLACE).click()
    expect(card(inspected)).to_contain_text("Steered, token 4", timeout=ANSWER_SECONDS * 1000)
    inspected.locator(".st-key-token-go-on").get_by_role("button").first.click()
    versions = inspected.get_by_role("radiogroup", name="Versions of this turn")
    expect(versions).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    ended(inspected)
    assert answers(inspected).nth(1).inner_text() != before
    versions.get_by_role("radio", name="First answers").click()
    expect(answers(inspected).nth(1)).to_have_text(before, timeout=PAGE_SECONDS * 1000, use_inner_text=True)


def test_the_keyboard_alone_opens_a_card_and_goes_on(inspected: Page) -> None:
    token(inspected, 0, 0).focus()
    for _ in range(PLACE):
        inspected.keyboard.press("ArrowRight")
    inspected.keyboard.press("Enter")
    expect(card(inspected)).to_contain_text("Baseline, token 4", timeout=ANSWER_SECONDS * 1000)
    settled(inspected, PAGE_SECONDS)
    expect(token(inspected, 0, PLACE)).to_be_focused()
    inspected.locator(".st-key-token-go-on").get_by_role("button").first.focus()
    inspected.keyboard.press("Enter")
    expect(inspected.get_by_role("radiogroup", name="Versions of this turn")).to_be_visible(
        timeout=ANSWER_SECONDS * 1000
    )
    ended(inspected)
