"""A report as its reader opens it: from a file, without a network."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from cna_core.circuits.attribution import attribute
from cna_core.circuits.evidence import examine
from cna_core.reports.circuit_report import circuit_report
from tests.circuits.samples import random_activations

pytestmark = pytest.mark.browser


def test_a_report_opens_without_a_network_and_draws_its_charts(browser: Browser, tmp_path: Path) -> None:
    activations = random_activations()
    circuit = attribute(activations, top_k=10)
    file = tmp_path / "report.html"
    report = circuit_report(circuit, activations=activations, evidence=examine(activations, circuit))
    file.write_text(report.to_html(), encoding="utf-8")
    context = browser.new_context(offline=True)
    try:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        expect(page.locator("html[data-drawn=true]")).to_have_count(1)
        expect(page.locator(".chart .main-svg").first).to_be_visible()
        assert page.locator(".js-plotly-plot").count() == 2
        assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
    finally:
        context.close()
