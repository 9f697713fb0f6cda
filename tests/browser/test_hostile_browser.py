"""Uploads whose names, prompts and answers hold markup: nothing in them runs, and no request leaves this machine."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from cna_core.evaluation.runs import Run
from tests.browser.server import settled
from tests.circuits.samples import circuit_of, identity
from tests.hostile.inputs import MARKUP
from tests.hostile.test_run_files import everywhere

pytestmark = pytest.mark.browser
NAME = " ".join(MARKUP)


def test_markup_in_uploads_neither_runs_nor_asks_another_server(page: Page, app_address: str, tmp_path: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    run, circuit = tmp_path / f"{MARKUP[3].replace('/', '')}.json", tmp_path / "circuit.json"
    run.write_text(json.dumps(everywhere(NAME)), encoding="utf-8")
    Run.load(run)
    circuit.write_text(circuit_of([(0, 1), (1, 2)], identity(name=NAME)).to_json(), encoding="utf-8")

    page.goto(f"{app_address}/evaluate")
    settled(page)
    page.get_by_role("button", name="Upload").click()
    page.get_by_test_id("stFileUploader").locator("input[type=file]").last.set_input_files(run)
    expect(page.get_by_role("tab", name="Answers that flipped")).to_be_visible(timeout=60_000)
    for tab in ("Answers that flipped", "By category", "Blind review", "All figures"):
        page.get_by_role("tab", name=tab).click()
        settled(page)
    page.get_by_role("button", name="Save, open or download").click()
    page.get_by_test_id("stFileUploader").locator("input[type=file]").last.set_input_files(circuit)
    expect(page.get_by_text("Showing the opened circuit")).to_be_visible(timeout=60_000)
    settled(page)

    assert page.evaluate("window.ran") is None
    hosts = {urlsplit(address).hostname for address in asked if not address.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    links = page.get_by_test_id("stMain").locator("a[href]")
    found = links.evaluate_all("all => all.map(one => [one.href, one.textContent])")
    assert not [href for href, _ in found if href.startswith("javascript:")]
    # A bare address may become a link, but it shows where it leads.
    assert all("198.51.100.7" in text for href, text in found if "198.51.100.7" in href)
    assert page.locator("img[src*='198.51.100.7'], img[onerror]").count() == 0
