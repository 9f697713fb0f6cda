"""The real app on a free port of this machine, and a browser to look at it with."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@contextlib.contextmanager
def running_app(log: Path, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Start the app and yield its address; it is stopped by its own process id afterwards."""
    port = free_port()
    with server_process(port, log, {**os.environ, **(environment or {})}) as process:
        address = f"http://127.0.0.1:{port}"
        _await_health(address, process, log)
        yield address


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server_process(
    port: int, log: Path, environment: dict[str, str], folder: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the app of a checkout, and do not wait until it answers; it is stopped by its own process id afterwards."""
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    command += ["--server.address", "127.0.0.1", "--server.port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_health(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"The app did not start; its log says: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium (or another one on the PATH), headless."""
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        raise RuntimeError("The browser tests need Chromium: make test installs it, or apt-get install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


def settled(page: Page, timeout_seconds: float = 30) -> Page:
    """Wait until the script behind the page has run to its end."""
    expect(page.get_by_test_id("stApp")).to_have_attribute(
        "data-test-script-state", "notRunning", timeout=timeout_seconds * 1000
    )
    return page
