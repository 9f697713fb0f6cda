"""A short sweep as a person does it: started, stopped in the middle, gone on with, its file downloaded and opened."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect

from tests.browser.server import settled
from tests.browser.test_main_job import find_the_gate

pytestmark = [pytest.mark.browser, pytest.mark.small_model]
SWEEP_MILLISECONDS = 300_000
STEP_MILLISECONDS = 60_000


def choose(page: Page, box: Locator, choice: str) -> None:
    """Open a box and take a choice; again where the page was drawn anew meanwhile, which closes the box."""
    option = page.get_by_role("option", name=choice, exact=True)
    for last in (False, False, True):
        box.click()
        try:
            return option.click(timeout=10_000)
        except TimeoutError:
            if last:
                raise
            page.keyboard.press("Escape")


def upload(page: Page, file: Path) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name="Upload").click()
    page.get_by_test_id("stFileUploader").locator("input[type=file]").last.set_input_files(file)


def set_up_a_short_sweep(page: Page, name: str) -> None:
    """Three harmful and three benign prompts, three strengths, one method with its random twin, short answers.

    After each choice it waits for what a person sees change, never for the script to come to rest: it may not have
    begun yet. Sixty questions are asked, so that a stop after the first answers comes before the end.
    """
    page.get_by_role("link", name="Evaluate").click()
    main = page.get_by_test_id("stMain")
    main.get_by_role("button", name="New run").click()
    main.get_by_role("radio", name="custom").click()
    strengths = main.get_by_label("Strengths, separated by commas")
    strengths.fill("0, 1, 2")
    strengths.press("Enter")
    # 2 strengths away from 0, of two methods and their random twins
    expect(main.get_by_text("9 settings × 200 prompts")).to_be_visible(timeout=STEP_MILLISECONDS)
    main.get_by_role("button", name="over-refusal", exact=True).click()
    expect(main.get_by_text("9 settings × 128 prompts")).to_be_visible(timeout=STEP_MILLISECONDS)
    main.get_by_role("button", name="CAA", exact=True).click()
    expect(main.get_by_text("5 settings × 128 prompts")).to_be_visible(timeout=STEP_MILLISECONDS)
    slider = main.get_by_role("slider", name="Harmful prompts")
    slider.focus()
    for key, prompts in (("Home", 2), ("ArrowRight", 4), ("ArrowRight", 6)):
        slider.press(key)
        expect(main.get_by_text(f"5 settings × {prompts} prompts")).to_be_visible(timeout=STEP_MILLISECONDS)
    main.get_by_text("More settings").click()
    settled(page, 60)
    choose(page, main.get_by_role("combobox", name="Knowledge questions"), "built-in")
    expect(main.get_by_role("spinbutton", name="Number of questions")).to_be_visible(timeout=STEP_MILLISECONDS)
    for label, value in (("Maximum answer length, tokens", "16"), ("Number of questions", "60")):
        box = main.get_by_role("spinbutton", name=label)
        box.fill(value)
        box.press("Enter")
        settled(page, 60)
        expect(box).to_have_value(value)
    main.get_by_label("Name of the run").fill(name)
    main.get_by_label("Name of the run").press("Enter")
    settled(page, 60)


def test_a_short_sweep_is_started_stopped_resumed_downloaded_and_opened_again(
    page: Page, app_address: str, tmp_path: Path
) -> None:
    find_the_gate(page, app_address)
    set_up_a_short_sweep(page, "browser run")
    main = page.get_by_test_id("stMain")

    main.get_by_role("button", name="Measure", exact=True).click()
    stop = main.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_visible(timeout=SWEEP_MILLISECONDS)
    expect(main.get_by_text(re.compile(r"[1-9]\d* answers so far"))).to_be_visible(timeout=SWEEP_MILLISECONDS)
    stop.click()
    go_on = main.get_by_role("button", name="Resume", exact=False)
    expect(go_on).to_be_visible(timeout=SWEEP_MILLISECONDS)

    go_on.click()
    download = main.get_by_role("button", name="JSON", exact=False)
    expect(go_on).to_be_hidden(timeout=SWEEP_MILLISECONDS)
    expect(download).to_be_visible(timeout=SWEEP_MILLISECONDS)
    settled(page, 120)
    expect(main.locator(".js-plotly-plot").first).to_be_visible()

    with page.expect_download() as begun:
        download.click()
    file = tmp_path / "run.json"
    begun.value.save_as(file)
    run = json.loads(file.read_text(encoding="utf-8"))
    assert run["format"] == "cna-run/2"
    assert run["finished"]
    assert {(point["method"], point.get("twin_of"), point["strength"]) for point in run["points"]} == {
        (*treatment, strength) for treatment in (("scale", None), ("random", "scale")) for strength in (0, 1, 2)
    }
    assert all(point["prompts"] == 3 and "knowledge" in point for point in run["points"])

    # Opened again, it is the same run; from another machine it would join the list.
    changed = tmp_path / "from elsewhere.json"
    run["name"], run["circuit_sha256"] = "from elsewhere", "0" * 64
    changed.write_text(json.dumps(run), encoding="utf-8")
    upload(page, changed)
    expect(main.get_by_role("button", name="from elsewhere")).to_be_visible(timeout=60_000)
    settled(page, 60)
    expect(main.locator("strong", has_text="from elsewhere")).to_be_visible()
    expect(main.locator(".js-plotly-plot").first).to_be_visible()


def test_a_file_that_is_no_run_is_told_in_place(page: Page, app_address: str, tmp_path: Path) -> None:
    page.goto(app_address)
    settled(page, 60)
    page.get_by_role("link", name="Evaluate").click()
    settled(page, 60)
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"format": "cna-run/7"}', encoding="utf-8")
    main = page.get_by_test_id("stMain")
    upload(page, wrong)
    expect(main.get_by_text("its format is 'cna-run/7'", exact=False)).to_be_visible()
