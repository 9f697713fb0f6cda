"""The very first visit to a server goes to a page by its address: it opens as any later visit would."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.server import running_app, settled

pytestmark = pytest.mark.browser
IMPORT_SECONDS = 90  # the first run imports torch and transformers


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("neurons", "What does each neuron do?"),
        ("chat", "What does steering change in an answer?"),
        ("", "Where does this model's refusal live?"),
    ],
    ids=["neurons", "chat", "home"],
)
def test_the_first_visit_may_be_a_deep_link(page: Page, tmp_path: Path, path: str, title: str) -> None:
    elsewhere = {"CNA_HOME": str(tmp_path / "cache")}
    with running_app(tmp_path / "log.txt", elsewhere) as address:
        page.goto(f"{address}/{path}?model=smollm2-135m-instruct&size=0.4")
        expect(page.get_by_role("heading", name=title)).to_be_visible(timeout=IMPORT_SECONDS * 1000)
        settled(page, IMPORT_SECONDS)
        sidebar = page.get_by_test_id("stSidebar")
        expect(page.get_by_role("button", name="Find the gate")).to_have_count(1)
        expect(sidebar.get_by_text("30 layers")).to_be_visible()
        expect(sidebar.get_by_role("slider").first).to_have_attribute("aria-valuetext", re.compile(r"0\.4"))
        expect(page.get_by_role("link", name="Method")).to_be_visible()
        assert "size=0.4" in page.url
