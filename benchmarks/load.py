"""How the app holds up when several people use it at once: real browser sessions against the real server.

    python benchmarks/load.py [MODEL] [--sessions 5] [--tokens 40]

Every session opens the app, finds the gate and goes to Chat. Then all send one message each: first one after the other,
then all at once. Reported: when the last answer came, at once against one after the other (aimed at: at most 1.5);
whether each session's baseline answer is, letter for letter, what it is alone; error boxes; how long the Method page,
which needs no model, takes to show while the others are being answered (aimed at: 0.5 s in the 95th percentile); and
the server's memory before and after. The browsers run on the same cores as the server. Needs Chromium and the packages
of tests/requirements.txt. Prints text; the last line is JSON.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, expect

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.models.catalog import SMALL_MODEL
from tests.browser.server import chromium, running_app, settled
from tests.browser.test_main_job import find_the_gate

MESSAGE = "Write three sentences about the sea."
PATIENCE_MILLISECONDS = 600_000
LOOKS_MILLISECONDS = 100
SENT_AGAIN, STOP = ".st-key-chat-again", ".st-key-chat-stop"
METHOD_TITLE = "How the gate is found"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Several browser sessions at once.")
    parser.add_argument("model", nargs="?", default=SMALL_MODEL)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with running_app(log) as address, chromium() as browser:
            report = measured(browser, address, options.sessions, options.tokens)
        report["tracebacks"] = log.read_text(errors="replace").count("Traceback")
    for name, value in report.items():
        print(f"{name:36} {value}")
    about = {"benchmark": "load", "model": options.model, "sessions": options.sessions, "tokens": options.tokens}
    print(json.dumps({**about, "cpu": platform.processor() or platform.machine(), **report}))


def measured(browser: Browser, address: str, sessions: int, tokens: int) -> dict[str, float]:
    """What is reported, by name."""
    pages = [a_chat(browser, address, tokens) for _ in range(sessions)]
    visitor = browser.new_context().new_page()
    visitor.goto(f"{address}/method")
    settled(visitor, 60)
    server = server_of(address)
    before = server.memory_info().rss
    alone, answers = 0.0, []
    for page in pages:
        started = time.perf_counter()
        send(page)
        wait_for_answer(page)
        alone += time.perf_counter() - started
        answers.append(baseline(page))
    started = time.perf_counter()
    for page in pages:
        page.locator(SENT_AGAIN).get_by_role("button").click()
        expect(page.locator(STOP)).to_be_visible(timeout=PATIENCE_MILLISECONDS)
    waiting, ended, looks = list(pages), [], []
    while waiting:
        looks.append(seconds_to_show(visitor))
        for page in [page for page in waiting if is_answered(page)]:
            ended.append(time.perf_counter() - started)
            waiting.remove(page)
    return {
        "one after the other, s": round(alone, 1),
        "at once: first answer, s": round(ended[0], 1),
        "at once: last answer, s": round(ended[-1], 1),
        "ratio": round(ended[-1] / alone, 2),
        "baselines that differ": sum(baseline(page) != answers[0] for page in pages) + len(set(answers)) - 1,
        "error boxes": sum(page.get_by_test_id("stException").count() for page in pages),
        "Method page, median s": round(float(np.median(looks)), 2),
        "Method page, 95th percentile s": round(float(np.percentile(looks, 95)), 2),
        "memory grown by": round(server.memory_info().rss / before - 1, 3),
    }


def a_chat(browser: Browser, address: str, tokens: int) -> Page:
    """A session of its own with the gate found, on the Chat page, with answers of at most so many tokens."""
    page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    find_the_gate(page, address)
    page.get_by_role("link", name="Chat").click()
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_enabled(timeout=PATIENCE_MILLISECONDS)
    settled(page, 120)
    page.get_by_role("button", name="Settings").click()
    field = page.get_by_label("Maximum answer length, tokens")
    field.fill(str(tokens))
    field.press("Enter")
    settled(page, 120)
    page.keyboard.press("Escape")
    return page


def send(page: Page) -> None:
    field = page.get_by_test_id("stChatInputTextArea")
    field.fill(MESSAGE)
    field.press("Enter")


def wait_for_answer(page: Page) -> None:
    expect(page.locator(SENT_AGAIN)).to_be_visible(timeout=PATIENCE_MILLISECONDS)
    settled(page, 120)


def is_answered(page: Page) -> bool:
    """Whether the turn is over; looks once, and waits a tenth of a second."""
    page.wait_for_timeout(LOOKS_MILLISECONDS)
    return page.locator(SENT_AGAIN).is_visible()


def baseline(page: Page) -> str:
    return page.get_by_test_id("answer").first.inner_text()


def seconds_to_show(visitor: Page) -> float:
    """From a click on another page that needs no model until it is drawn: Method, and back to Compare before that."""
    visitor.get_by_role("link", name="Compare").click()
    settled(visitor, 120)
    started = time.perf_counter()
    visitor.get_by_role("link", name="Method").click()
    expect(visitor.get_by_role("heading", name=METHOD_TITLE)).to_be_visible()
    settled(visitor, 120)
    return time.perf_counter() - started


def server_of(address: str) -> psutil.Process:
    """The server's process: this program started it."""
    port = address.rsplit(":", 1)[1]
    return next(child for child in psutil.Process().children() if port in child.cmdline())


if __name__ == "__main__":
    main()
