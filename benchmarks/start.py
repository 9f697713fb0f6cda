"""From nothing to seeing: how long a person waits for the first page, the first gate and the first token.

    python benchmarks/start.py [MODEL] [--rounds 2] [--against FOLDER]

Every figure comes from a server and a cache folder of its own. The times are those of a real browser (Chromium), which
notes for itself when something is on screen, in the frame after it came into the page:

- server to first page: from the start of the server's process until the page's heading, or its button, is painted;
- click on *Find the gate*: until a stage is named, and until the circuit is named in a sentence; with saved activations
  (at once, and after ten seconds, in which the server imports its libraries), with a converted model, and with the
  model's file only, which is converted first (downloading is not measured: there may be no network);
- first message: from Enter on the Chat page until the first token of an answer.

The model is taken from the cache folder, where it is put if it is missing. `--against` names another checkout of the
project, which is measured alternately, for the ratios. Targets on two CPU cores: first page 2 s, saved activations
1.5 s, a named stage 0.3 s after every click, the default model loaded in 4 s. The browser runs on the same cores as the
server. Needs Chromium and the packages of tests/requirements.txt. Prints text; the last line is JSON.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from benchmarks.machine import processor
from cna_core.models.catalog import DEFAULT_MODEL, Embedded, catalog
from cna_core.models.convert import converted_folder
from cna_core.models.fetch import locate
from cna_core.paths import cache_folder
from tests.browser.server import chromium, free_port, server_process, settled

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_MILLISECONDS = 300_000
READING_SECONDS = 10
MESSAGE = "Write one sentence about the sea."

NOTES_TIMES = """
window.seenAt = {};
const looks = {
  heading: () => [...document.querySelectorAll("h1")].some(h => h.innerText.includes("refusal live")),
  button: () => document.querySelector(".st-key-find-here button"),
  stage: () => [...document.querySelectorAll("[data-testid=stProgress]")].some(
    bar => bar.innerText.trim() && !/^(Starting|Stopping)/.test(bar.innerText.trim())),
  circuit: () => document.querySelector(".st-key-gate-verdict, .st-key-gate-verdict-first"),
  token: () => document.querySelector("[data-testid=answer]")?.innerText.trim(),
};
function look() {
  for (const [name, seen] of Object.entries(looks))
    if (!(name in window.seenAt) && seen()) {
      window.seenAt[name] = null;
      requestAnimationFrame(() => { window.seenAt[name] = Date.now() / 1000; });
    }
}
new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
window.addEventListener("pointerdown", () => { window.clickedAt = Date.now() / 1000; }, true);
window.addEventListener("keydown", event => { if (event.key === "Enter") window.sentAt = Date.now() / 1000; }, true);
"""
"""Runs in the page: when each thing was first painted, and when the person clicked and sent."""


@dataclass(frozen=True)
class Tree:
    """A checkout that is measured.

    Args:
        name: for the table.
        folder: its folder.
    """

    name: str
    folder: Path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From nothing to seeing, each figure in a fresh process.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, help="another checkout of the project, measured alternately")
    options = parser.parse_args()
    entry = catalog().get(options.model)
    if entry is None or entry.embedded is None:
        parser.error(f"{options.model} is not one of the embedded models")
    locate(options.model)
    trees = [Tree("here", ROOT)]
    if options.against is not None:
        trees.insert(0, Tree("there", options.against.resolve()))
    print(f"{options.model} on {processor()}, {os.cpu_count()} cores; {options.rounds} rounds")
    found: dict[str, dict[str, list[float]]] = {tree.name: {} for tree in trees}
    with chromium() as browser:
        for turn in range(options.rounds):
            for tree in trees:
                for name, seconds in one_round(browser, tree, options.model, entry.embedded):
                    found[tree.name].setdefault(name, []).append(seconds)
                    print(f"  round {turn + 1}, {tree.name}: {name} {seconds:.2f} s", flush=True)
    medians = {
        tree: {name: round(statistics.median(each), 2) for name, each in times.items()} for tree, times in found.items()
    }
    for name in medians["here"]:
        ratio = f", {medians['there'][name] / medians['here'][name]:.2f} times" if len(trees) > 1 else ""
        print(f"{name:64}" + "".join(f" {tree} {times[name]:6.2f} s" for tree, times in medians.items()) + ratio)
    about = {"benchmark": "start", "model": options.model, "cpu": processor(), "cores": os.cpu_count()}
    print(json.dumps({**about, "rounds": options.rounds, "seconds": medians}))


def one_round(browser: Browser, tree: Tree, model: str, embedded: Embedded) -> Iterator[tuple[str, float]]:
    """Every figure once, by name."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        link_converted(home, embedded)
        with first_page(browser, tree, home, model) as (page, started):
            yield "server to first page: heading", seen(page, "heading") - started
            yield "server to first page: button", seen(page, "button") - started
            yield from click_find(page, "converted model")
            yield "first message to first token", first_token(page)
        with first_page(browser, tree, home, model) as (page, _):
            yield from click_find(page, "saved activations, at once")
            yield "first message to first token, saved activations", first_token(page)
        with first_page(browser, tree, home, model) as (page, _):
            page.wait_for_timeout(READING_SECONDS * 1000)
            yield from click_find(page, f"saved activations, after {READING_SECONDS} s")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        if link_file(home, embedded):
            with first_page(browser, tree, home, model) as (page, _):
                yield from click_find(page, "model's file only")


@contextlib.contextmanager
def first_page(browser: Browser, tree: Tree, home: Path, model: str) -> Iterator[tuple[Page, float]]:
    """A fresh server's first page in a fresh browser context, and when the server's process started."""
    port, log = free_port(), home / "log.txt"
    environment = {**os.environ, "CNA_HOME": str(home), "PYTHONPATH": str(tree.folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as a person starts it
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(NOTES_TIMES)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    started = time.time()
    with server_process(port, log, environment, tree.folder) as server, contextlib.closing(context):
        while not listens(port):
            if server.poll() is not None:
                raise RuntimeError(f"The server ended: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        page.goto(f"http://127.0.0.1:{port}/?model={model}", wait_until="commit")
        seen(page, "button")
        settled(page, PATIENCE_MILLISECONDS / 1000)
        yield page, started


def click_find(page: Page, case: str) -> Iterator[tuple[str, float]]:
    """Click on the button; the seconds to a named stage (or to the result) and to the circuit."""
    page.locator(".st-key-find-here button").click()
    circuit = seen(page, "circuit")
    clicked = float(page.evaluate("window.clickedAt"))
    stages = page.evaluate("window.seenAt.stage")
    yield f"click to a named stage: {case}", min(circuit, stages or circuit) - clicked
    yield f"click to the circuit: {case}", circuit - clicked


def first_token(page: Page) -> float:
    """Go to Chat, send a message; the seconds from Enter to the first token."""
    settled(page, PATIENCE_MILLISECONDS / 1000)
    page.get_by_role("link", name="Chat").click()
    field = page.get_by_test_id("stChatInputTextArea")
    expect(field).to_be_enabled(timeout=PATIENCE_MILLISECONDS)
    field.fill(MESSAGE)
    field.press("Enter")
    token = seen(page, "token")
    return token - float(page.evaluate("window.sentAt"))


def seen(page: Page, name: str) -> float:
    """When this was first painted, in seconds since the epoch; waits for it."""
    page.wait_for_function(f"window.seenAt?.{name}", polling=50)
    return float(page.evaluate(f"window.seenAt.{name}"))


def listens(port: int) -> bool:
    """Whether a server accepts connections on this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def link_converted(home: Path, embedded: Embedded) -> None:
    """Put links to the converted model's files into another cache folder."""
    source = converted_folder(embedded.sha256)
    target = home / "models" / source.name
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            (target / file.name).symlink_to(file)
        else:
            shutil.copyfile(file, target / file.name)


def link_file(home: Path, embedded: Embedded) -> bool:
    """Put a link to the model's GGUF into another cache folder; False if it is not on this machine."""
    source = cache_folder("downloads", create=False) / embedded.file
    if not source.is_file():
        return False
    (home / "downloads").mkdir()
    (home / "downloads" / source.name).symlink_to(source)
    return True


if __name__ == "__main__":
    main()
