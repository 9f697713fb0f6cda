"""The Gate and Neurons pages in a real browser: clicks, zoom, downloads, links, and files that are no circuit."""

import csv
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cna_core.circuits.circuit import Circuit
from tests.browser.server import settled
from tests.browser.test_main_job import card, find_the_gate
from tests.circuits.samples import circuit_of, identity

pytestmark = [pytest.mark.browser, pytest.mark.small_model]

# Where on the screen a point of the map is, and which neuron it stands for.
PLACE_OF_POINT = """([meta, index]) => {
    const chart = document.querySelector('.js-plotly-plot'), layout = chart._fullLayout;
    const trace = chart._fullData.find(one => one.meta === meta), box = chart.getBoundingClientRect();
    return [box.x + layout._size.l + layout.xaxis.d2p(trace.x[index]),
            box.y + layout._size.t + layout.yaxis.d2p(trace.y[index]), ...trace.customdata[index].slice(0, 2)];
}"""
MAP_RANGE = "() => document.querySelector('.js-plotly-plot')?._fullLayout?.yaxis?.range"
ACROSS = """() => {
    const chart = document.querySelector('.js-plotly-plot');
    const cells = chart?._fullData?.find(one => one.meta === 'cells');
    return cells && [chart._fullLayout.xaxis.range, cells.z[0].length];
}"""
EVIDENCE_SECONDS = 60


def with_evidence(page: Page) -> Page:
    """Wait until the controls are computed and the map can be clicked."""
    expect(page.get_by_test_id("card").nth(1)).to_contain_text("shuffled", timeout=EVIDENCE_SECONDS * 1000)
    settled(page)
    page.wait_for_function(
        "() => document.querySelector('.js-plotly-plot')?._fullData?.some(one => one.meta === 'grid')"
    )
    return page


def heading(page: Page, layer: float, neuron: float) -> None:
    expect(page.get_by_role("heading", name=f"Layer {layer:.0f}, neuron {neuron:.0f}")).to_be_visible()


@pytest.mark.parametrize("meta", ["circuit", "universal"])
def test_a_clicked_mark_opens_that_neurons_card(page: Page, app_address: str, meta: str) -> None:
    with_evidence(find_the_gate(page, app_address))
    x, y, layer, neuron = page.evaluate(PLACE_OF_POINT, [meta, 1])
    page.mouse.click(x, y)
    heading(page, layer, neuron)
    page.wait_for_url(re.compile(rf"neuron={layer:.0f}\.{neuron:.0f}"))


def test_a_clicked_cell_opens_the_card_of_a_neuron_of_that_layer(page: Page, app_address: str) -> None:
    with_evidence(find_the_gate(page, app_address))
    x, y, layer, _ = page.evaluate(PLACE_OF_POINT, ["grid", 3000])
    page.mouse.click(x, y)
    expect(page.get_by_role("heading", name=re.compile(f"Layer {layer:.0f}, neuron"))).to_be_visible()
    expect(page.get_by_text("Not in the circuit")).to_be_visible()


def zoom(page: Page, field: str, value: int) -> None:
    number = page.get_by_role("spinbutton", name=field)
    if not number.is_visible():
        page.get_by_role("button", name="Zoom", exact=False).filter(has_text="Zoom").click()
    number.fill(str(value))
    number.press("Enter")


def test_the_map_zooms_to_a_range_of_layers_that_a_link_keeps(page: Page, app_address: str) -> None:
    with_evidence(find_the_gate(page, app_address))
    zoom(page, "From layer", 3)
    page.wait_for_function(f"() => JSON.stringify(({MAP_RANGE})()) === '[2.5,29.5]'")
    page.wait_for_url(re.compile("layers=3-29"))
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Method").click()
    page.wait_for_url(re.compile("/method"))
    settled(page)
    page.get_by_role("link", name="Gate").click()
    page.wait_for_function(f"() => JSON.stringify(({MAP_RANGE})()) === '[2.5,29.5]'")


def test_the_map_zooms_to_one_cell_a_neuron(page: Page, app_address: str) -> None:
    with_evidence(find_the_gate(page, app_address))
    expect(page.get_by_text("2 to a cell, the strongest shown")).to_be_visible()
    zoom(page, "To neuron", 9)
    expect(page.get_by_text("neuron (one to a cell)")).to_be_visible()
    page.wait_for_function(f"() => JSON.stringify(({ACROSS})()) === '[[-0.5,9.5],10]'")


def test_the_camera_saves_png_after_it_was_chosen(page: Page, app_address: str) -> None:
    with_evidence(find_the_gate(page, app_address))
    page.get_by_test_id("stMain").get_by_test_id("stPopover").filter(has_not_text="Zoom").first.click()
    page.get_by_role("radio", name="PNG").first.click()
    settled(page)
    page.keyboard.press("Escape")
    page.locator(".js-plotly-plot").first.hover()
    with page.expect_download() as download:
        page.locator(".modebar-btn[data-title*=ownload]").first.click()
    assert download.value.suggested_filename == "gate-heatmap.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_a_chart_is_taken_away_as_a_page_and_as_data(page: Page, app_address: str, tmp_path: Path) -> None:
    with_evidence(find_the_gate(page, app_address))
    page.get_by_test_id("stMain").get_by_test_id("stPopover").filter(has_not_text="Zoom").first.click()
    for name in ("Chart (HTML)", "The circuit's neurons (CSV)"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        download.value.save_as(tmp_path / name)
    assert "Plotly.newPlot" in (tmp_path / "Chart (HTML)").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "The circuit's neurons (CSV)").open(encoding="utf-8")))
    assert [int(row["rank"]) for row in rows] == list(range(1, 47))


def test_the_downloaded_table_has_the_circuits_rows(page: Page, app_address: str, tmp_path: Path) -> None:
    with_evidence(find_the_gate(page, app_address))
    page.get_by_role("link", name="Neurons").click()
    settled(page, EVIDENCE_SECONDS)
    for name in ("CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        download.value.save_as(tmp_path / name)
    rows = list(csv.DictReader((tmp_path / "CSV").open(encoding="utf-8")))
    circuit = Circuit.load(tmp_path / "JSON")
    assert [(int(row["layer"]), int(row["neuron"])) for row in rows] == [
        (int(layer), int(neuron)) for layer, neuron in zip(circuit.layers, circuit.neurons, strict=True)
    ]
    assert len(rows) == 46


def test_a_link_restores_circuit_neuron_and_view_in_a_new_session(page: Page, app_address: str) -> None:
    find_the_gate(page, app_address)  # so that its activations are at hand
    other = page.context.browser.new_context(viewport={"width": 1280, "height": 720}).new_page()  # type: ignore[union-attr]
    choices = "size=0.4&neuron=5.7&found=1&quantity=magnitude"
    other.goto(f"{app_address}/?model=smollm2-135m-instruct&{choices}")
    expect(other.get_by_role("button", name=re.compile("Gate found"))).to_be_visible(timeout=EVIDENCE_SECONDS * 1000)
    with_evidence(other)
    heading(other, 5, 7)
    assert "184" in card(other, "circuit")
    expect(other.get_by_text("|δ| of every neuron")).to_be_visible()
    other.context.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"format": "cna-circuit/1", "neur', "is damaged or not JSON"),
        (json.dumps({"format": "cna-circuit/9"}).encode(), "this app reads cna-circuit/1"),
        (circuit_of([(0, 0)], identity(9)).to_json().encode(), "belongs to sample"),
        (b" " * (65 << 20), "or smaller"),  # the browser refuses it before it is sent
    ],
    ids=["broken", "unknown version", "foreign", "huge"],
)
def test_a_file_that_is_no_circuit_of_this_model_is_refused_with_the_reason(
    page: Page, app_address: str, tmp_path: Path, content: bytes, reason: str
) -> None:
    with_evidence(find_the_gate(page, app_address))
    upload = tmp_path / "upload.json"
    upload.write_bytes(content)
    page.get_by_role("button", name=re.compile("Save, open or download")).click()
    page.get_by_test_id("stFileUploader").locator("input[type=file]").last.set_input_files(upload)
    expect(page.get_by_text(reason, exact=False).first).to_be_visible()
    assert "46" in card(page, "circuit")
