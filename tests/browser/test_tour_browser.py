"""The tour as a visitor takes it, from its address to its end."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.server import settled
from tests.browser.test_main_job import ANSWER_SECONDS, FIND_SECONDS, START_SECONDS

pytestmark = [pytest.mark.browser, pytest.mark.small_model]
PAGE_SECONDS = 60


def card(page: Page) -> Locator:
    return page.locator(".st-key-tour")


def go_on(page: Page, label: str | re.Pattern[str] = "Next") -> None:
    """Press the card's button of that name."""
    button = card(page).get_by_role("button", name=label)
    expect(button).to_be_visible(timeout=ANSWER_SECONDS * 1000)
    settled(page, PAGE_SECONDS)
    button.click()


def on_step(page: Page, number: int, title: str) -> None:
    expect(card(page)).to_contain_text(f"{number} of 5", timeout=PAGE_SECONDS * 1000)
    expect(page.get_by_role("heading", level=1)).to_contain_text(title, timeout=PAGE_SECONDS * 1000)
    settled(page, PAGE_SECONDS)


def test_the_tour_leads_from_its_address_to_the_control(page: Page, app_address: str) -> None:
    page.goto(f"{app_address}/?model=smollm2-135m-instruct&size=0.4&tour=1")
    expect(card(page)).to_contain_text("1 of 5", timeout=START_SECONDS * 1000)
    settled(page, START_SECONDS)
    find = card(page).get_by_role("button", name="Find the gate, then go on")
    if find.count():  # another test of this server may have found it
        find.click()
    expect(card(page).get_by_role("button", name="Next")).to_be_visible(timeout=FIND_SECONDS * 1000)
    expect(card(page)).to_contain_text("184 neurons")

    go_on(page)
    on_step(page, 2, "each neuron")
    expect(page.get_by_role("heading", name=re.compile(r"^Layer \d+, neuron \d+$"))).to_be_visible()
    go_on(page)
    on_step(page, 3, "steering")
    expect(page).to_have_url(re.compile("tour=3"))
    expect(page.locator(".st-key-strength").get_by_role("slider")).to_be_visible()
    assert "184 neurons" in card(page).inner_text()  # the size in the address has survived two changes of pages

    go_on(page, "Ask both models")
    expect(page.get_by_test_id("answer")).to_have_count(2, timeout=ANSWER_SECONDS * 1000)
    go_on(page, "Ask a random twin")  # while the two are written, or behind them
    expect(page.get_by_test_id("answer")).to_have_count(3, timeout=ANSWER_SECONDS * 1000)
    page.locator(".st-key-chat-stop").get_by_role("button").click()
    expect(card(page)).to_contain_text("Random twin, as many other neurons", timeout=ANSWER_SECONDS * 1000)
    go_on(page, "Finish")
    expect(card(page)).to_have_count(0)
    expect(page.get_by_test_id("answer")).to_have_count(3)
    assert "tour=" not in page.url
