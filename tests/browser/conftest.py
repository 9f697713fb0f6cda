"""One server and one browser for all browser tests; a fresh browser session for each."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from cna_core.paths import OWN_WORK, cache_folder
from tests.browser.server import chromium, running_app


@pytest.fixture(scope="session")
def app_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the running app. It shares what was fetched and computed with the other tests, and leaves no
    circuits, prompts or runs behind in anybody's cache."""
    folder = tmp_path_factory.mktemp("app")
    home = folder / "home"
    home.mkdir()
    kept = {"models", "downloads", *(entry.name for entry in cache_folder().iterdir() if entry.is_dir())}
    for kind in kept - OWN_WORK:
        (home / kind).symlink_to(cache_folder(kind))
    with running_app(folder / "log.txt", {"CNA_HOME": str(home)}) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new session at 1280 × 720, light theme."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme="light")
    context.set_default_timeout(30_000)
    try:
        yield context.new_page()
    finally:
        context.close()
