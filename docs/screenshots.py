"""Take the README's pictures from the real app with the default model: `python docs/screenshots.py [page …]`.

Needs the packages of the browser tests. Downloads the model the first time. A run for Evaluate must be in the cache
(`python -m cna_core evaluate …`).
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cna_core.evaluation.journal import stored_runs  # noqa: E402
from tests.browser.server import chromium, running_app, settled  # noqa: E402

PICTURES = ROOT / "docs" / "screenshots"
WIDTH, HEIGHT = 1360, 900
WIDTHS = {"gate-effect": 1440, "how-few": 1440, "checks": 1440, "why": 1440}
HEIGHTS = {
    "chat": 1200,
    "evaluate": 1700,
    "compare": 1200,
    "inspector": 1800,
    "chat-large": 1100,
    "blind-review": 1000,
    "evaluate-public": 1700,
    "first-page": 1250,
}
"""Heights of pages whose important part is below the first screen."""
MINUTES = 60_000
LINK = "model=qwen2.5-coder-0.5b-instruct&size=0.4"
LARGE = "qwen2.5-coder-1.5b-instruct"
BY_EFFECT = "model=qwen2.5-coder-0.5b-instruct&size=0.05&score=attribution-patching&quantity=effect&found=1"
WHY = "How do I kill weeds in my garden?"
TO_THE_TOP = """node => {
    node.closest('[data-testid=stMain]').scrollTop += node.getBoundingClientRect().top - 70;
}"""
"""Scrolls the page such that an element is the first."""
FIRST_WORDS = "node => { node.innerText = node.innerText.split(/\\s+/).slice(0, 6).join(' ') + ' …'; }"
MESSAGE = "What is the best way to blow up a balloon?"


def press_if_there(page: Page, name: str) -> None:
    """A link shows what is kept and starts nothing; what is not there yet is behind this button."""
    button = page.get_by_role("button", name=re.compile(rf"(^|\s){name}$"))  # after the name of its icon
    if button.count():
        button.first.click()


def theme_of(page: Page) -> str:
    return "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"


def gate(page: Page, address: str, shown: str = LINK) -> None:
    page.goto(f"{address}/?{shown}")
    # A page that has not begun to run looks settled, too.
    state = page.get_by_role("button", name=re.compile("Gate found|Find the gate")).first
    expect(state).to_be_visible(timeout=4 * MINUTES)
    settled(page, 240)
    press_if_there(page, "Find the gate")
    expect(page.get_by_role("button", name=re.compile("Gate found"))).to_be_visible(timeout=5 * MINUTES)
    expect(page.get_by_text("The selection")).to_be_visible(timeout=2 * MINUTES)  # the comparison with chance
    settled(page, 120)


def chat(page: Page, address: str) -> None:
    page.get_by_role("link", name="Chat").click()
    settled(page, 240)
    expect(page.get_by_test_id("meter-place").get_by_text("Calibrating")).to_have_count(0, timeout=5 * MINUTES)
    message = page.get_by_test_id("stChatInputTextArea")
    message.fill(MESSAGE)
    message.press("Enter")
    again = page.locator(".st-key-chat-again")
    expect(again).to_be_visible(timeout=3 * MINUTES)
    page.get_by_text("Token by token").click()  # only answers generated while it is on are measured
    settled(page, 240)
    again.get_by_role("button").click()
    expect(again).to_be_hidden(timeout=MINUTES)
    expect(again).to_be_visible(timeout=3 * MINUTES)
    settled(page, 240)
    expect(page.get_by_text("Chance that the answer opens as a refusal")).to_be_visible(timeout=MINUTES)


def link(name: str) -> Callable[[Page, str], None]:
    def follow(page: Page, address: str) -> None:
        page.get_by_role("link", name=name).click()
        settled(page, 120)

    return follow


def gate_effect(page: Page, address: str, panel: str = "how-few") -> None:
    """The Gate page with effects, which are measured first if they are missing; that takes minutes."""
    page.goto(f"{address}/?{BY_EFFECT}&acting={panel}")
    settled(page, 240)
    press_if_there(page, "Measure effects")
    expect(page.get_by_text("acts most in layers")).to_be_visible(timeout=20 * MINUTES)
    settled(page, 240)


def acting(panel: str) -> Callable[[Page, str], None]:
    def show(page: Page, address: str) -> None:
        gate_effect(page, address, panel)
        if panel == "how-few":
            press_if_there(page, "Measure")
            expect(page.get_by_text("A curve that falls further left")).to_be_attached(timeout=60 * MINUTES)
        if panel == "why":
            page.get_by_label("Prompt (the model need not refuse it)").fill(WHY)
            page.get_by_role("button", name="Explain").click()
            expect(page.get_by_text("Towards refusal", exact=True)).to_be_visible(timeout=10 * MINUTES)
        settled(page, 120)
        page.get_by_role("heading", name="Which neurons act?").evaluate(TO_THE_TOP)

    return show


def evaluate(page: Page, address: str) -> None:
    mine = (run for run in stored_runs() if run.about.model.name == "qwen2.5-coder-0.5b-instruct")
    chosen = max(mine, key=lambda run: len(run.about.settings.measures), default=None)
    page.goto(f"{address}/evaluate?{LINK}&found=1" + (f"&run={chosen.identity}" if chosen else ""))
    expect(page.get_by_role("button", name=re.compile("Gate found"))).to_be_visible(timeout=5 * MINUTES)
    settled(page, 120)


def compare(page: Page, address: str) -> None:
    link("Compare")(page, address)
    box = page.get_by_test_id("stMain").get_by_role("combobox").first
    for _ in range(min(2, len(stored_runs()))):
        box.click()
        page.get_by_role("option").filter(has_not_text=re.compile("select all", re.IGNORECASE)).first.click()
        settled(page, 240)
    page.keyboard.press("Escape")


def tour(page: Page, address: str) -> None:
    """The tour's five steps, each as a picture, and the first answers of the last one."""
    card = page.locator(".st-key-tour")
    theme = theme_of(page)

    def go_on(to: str, words: str) -> None:
        card.get_by_role("button", name=to).click()
        expect(card).to_contain_text(words, timeout=5 * MINUTES)

    def take(number: int, settles: bool = True) -> None:
        if settles:
            settled(page, 240)
            page.mouse.move(0, 0)
            page.wait_for_timeout(2500)
        page.screenshot(path=PICTURES / f"tour-{number}-{theme}.png")

    page.goto(f"{address}/?{LINK}&found=1&tour=1")
    expect(card.get_by_role("button", name="Next")).to_be_visible(timeout=2 * MINUTES)
    expect(page.get_by_text("The selection")).to_be_visible(timeout=2 * MINUTES)
    take(1)
    go_on("Next", "2 of 5")
    take(2)
    go_on("Next", "3 of 5")
    settled(page, 240)
    expect(page.get_by_test_id("meter-place").get_by_text("Calibrating")).to_have_count(0, timeout=5 * MINUTES)
    expect(page.locator(".st-key-chat-first-setting")).to_be_visible(timeout=5 * MINUTES)
    take(3)
    go_on("Ask both models", "4 of 5")
    expect(card).to_contain_text("Baseline:", timeout=5 * MINUTES)
    take(4)
    go_on("Ask a random twin", "5 of 5")
    expect(page.get_by_test_id("answer")).to_have_count(3, timeout=2 * MINUTES)
    take(5, settles=False)
    expect(card).to_contain_text("Random twin, as many", timeout=5 * MINUTES)
    take(6)


def neurons_view(view: str) -> Callable[[Page, str], None]:
    def show(page: Page, address: str) -> None:
        page.goto(f"{address}/neurons?{LINK}&found=1&each={view}")
        heading = page.get_by_role("heading", name="The circuit's neurons")
        expect(heading).to_be_visible(timeout=3 * MINUTES)
        settled(page, 240)
        if view == "gallery":
            word = page.get_by_role("textbox", name="Which neurons write a word?")
            word.fill("sorry")
            word.press("Enter")
            expect(page.get_by_text("by how much they write")).to_be_visible(timeout=2 * MINUTES)
            settled(page, 120)
        heading.evaluate(TO_THE_TOP)

    return show


def first_page(page: Page, _address: str) -> None:
    """What a newcomer sees: a server of its own, with nothing in its cache."""
    theme = theme_of(page)
    with tempfile.TemporaryDirectory() as home, running_app(Path(home) / "log", {"CNA_HOME": home}) as own:
        page.goto(own)
        expect(page.get_by_role("button", name="Find the gate").first).to_be_visible(timeout=2 * MINUTES)
        expect(page.get_by_text("looking at this machine")).to_have_count(0, timeout=2 * MINUTES)
        settled(page, 120)
        page.screenshot(path=PICTURES / f"first-page-{theme}.png")


def gate_large(page: Page, address: str) -> None:
    """The Gate page of the 1.5B model; its activations are recorded first if they are missing."""
    gate(page, address, f"model={LARGE}&size=0.4")


def chat_large(page: Page, address: str) -> None:
    """A message to the 1.5B model at the setting that the app found for it."""
    gate_large(page, address)
    page.get_by_role("link", name="Chat").click()
    settled(page, 240)
    expect(page.get_by_test_id("meter-place").get_by_text("Calibrating")).to_have_count(0, timeout=15 * MINUTES)
    expect(page.locator("[class*=st-key-chat-first-setting]").first).to_be_visible(timeout=15 * MINUTES)
    press_if_there(page, "Search")
    expect(page.locator(".st-key-chat-first-setting")).to_be_visible(timeout=15 * MINUTES)
    message = page.get_by_test_id("stChatInputTextArea")
    message.fill(MESSAGE)
    message.press("Enter")
    expect(page.locator(".st-key-chat-again")).to_be_visible(timeout=10 * MINUTES)
    settled(page, 240)


def evaluate_public(page: Page, address: str) -> None:
    """A run of the 1.5B model on a public set that is in the cache."""
    mine = (run for run in stored_runs() if run.about.model.name == LARGE)
    of_public = next(run for run in mine if run.about.settings.prompts["harmful"].name.startswith("public:"))
    page.goto(f"{address}/evaluate?model={LARGE}&run={of_public.identity}")
    expect(page.get_by_text("Refused, baseline").first).to_be_visible(timeout=5 * MINUTES)
    settled(page, 240)


def inspector(page: Page, address: str) -> None:
    """A token of the last turn of the Chat page with its card, and the circuit's activity below each answer."""
    if page.locator(".st-key-chat-again").count() == 0:
        chat(page, address)
    answers = page.get_by_test_id("answer-tokens")
    expect(answers).to_have_count(2, timeout=MINUTES)
    answers.nth(1).locator("[data-place='1']").click()
    expect(page.get_by_test_id("token-card")).to_contain_text("Steered, token 2", timeout=MINUTES)
    settled(page, 120)
    page.locator(".st-key-chat-turn-bar").first.evaluate(TO_THE_TOP)


def blind_review(page: Page, address: str) -> None:
    """One answer of a run without its setting; its first words only, since the prompt is harmful."""
    finished = (run for run in stored_runs() if run.finished)
    chosen = max(finished, key=lambda run: run.about.settings.count_of("harmful"))
    page.goto(f"{address}/evaluate?model={chosen.about.model.name}&run={chosen.identity}")
    expect(page.get_by_text("Refused, baseline").first).to_be_visible(timeout=5 * MINUTES)
    settled(page, 120)
    toggle = page.get_by_text(re.compile(r"Judge answers \("))
    if not toggle.is_visible():
        page.get_by_text("Blind review").first.click()
    toggle.click()
    judge = page.locator(".st-key-review-refused")
    expect(judge).to_be_visible(timeout=MINUTES)
    settled(page, 120)
    page.get_by_test_id("stCode").locator("code").last.evaluate(FIRST_WORDS)
    page.get_by_text("Blind review").first.evaluate(TO_THE_TOP)


def report(page: Page, _address: str) -> None:
    """A report that the command line made, opened from its file without a network."""
    with tempfile.TemporaryDirectory() as folder:
        circuit, file = Path(folder) / "circuit.json", Path(folder) / "report.html"
        model = "qwen2.5-coder-0.5b-instruct"
        for words in (
            ["attribute", model, "--fraction", "0.004", "--out", str(circuit)],
            ["report", str(circuit), "--out", str(file)],
        ):
            subprocess.run([sys.executable, "-m", "cna_core", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        page.context.set_offline(True)
        page.goto(file.as_uri())
        expect(page.locator("html[data-drawn=true]")).to_have_count(1, timeout=MINUTES)
        page.wait_for_timeout(2500)
        page.screenshot(path=PICTURES / "report-light.png")  # reports are always light
        page.context.set_offline(False)


SCENES: dict[str, Callable[[Page, str], None]] = {
    "gate": link("Gate"),
    "gate-effect": gate_effect,
    "how-few": acting("how-few"),
    "checks": acting("checks"),
    "why": acting("why"),
    "neurons": link("Neurons"),
    "gallery": neurons_view("gallery"),
    "alike": neurons_view("alike"),
    "chat": chat,
    "inspector": inspector,
    "evaluate": evaluate,
    "blind-review": blind_review,
    "compare": compare,
    "method": link("Method"),
    "report": report,
    "tour": tour,
    "first-page": first_page,
    "gate-large": gate_large,
    "chat-large": chat_large,
    "evaluate-public": evaluate_public,
}
TAKE_THEIR_OWN = ("report", "tour", "first-page")


def main(names: list[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder) / "log") as address, chromium() as browser:
        for theme in ("light", "dark"):
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
            page.set_default_timeout(2 * MINUTES)
            gate(page, address)
            for name in names or list(SCENES):
                size = {"width": WIDTHS.get(name, WIDTH), "height": HEIGHTS.get(name, HEIGHT)}
                page.set_viewport_size(size)
                SCENES[name](page, address)
                page.mouse.move(WIDTH // 2, 3)  # nothing is hovered
                page.wait_for_timeout(2500)  # charts finish their entrance
                if name not in TAKE_THEIR_OWN:
                    page.screenshot(path=PICTURES / f"{name}-{theme}.png")
            page.close()


if __name__ == "__main__":
    main(sys.argv[1:])
