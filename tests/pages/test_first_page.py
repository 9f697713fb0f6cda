"""What a person waits for first: a page that needs no torch, a named stage, and results that are there already."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cna_core.errors import ModelError
from cna_core.models.host import host
from cna_core.progress import Progress, Stage
from pages.common import findings, jobs, libraries
from tests.circuits.samples import random_activations

APP = Path(__file__).resolve().parents[2] / "app.py"
WAIT_SECONDS = 60
DRAWS_THE_FIRST_PAGE = """
import sys
from streamlit.testing.v1 import AppTest
from pages.common import libraries
libraries.start = lambda: None
app = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert [button.label for button in app.button].count("Find the gate") == 1, app
print(*sorted({"torch", "transformers", "scipy", "sklearn", "pandas"} & set(sys.modules)))
"""


def test_the_first_page_is_drawn_before_any_library_of_models_is_imported(tmp_path: Path) -> None:
    drawn = subprocess.run(
        [sys.executable, "-c", DRAWS_THE_FIRST_PAGE, str(APP)],
        cwd=APP.parent,
        env={"CNA_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.strip() == ""


def test_whoever_needs_the_libraries_is_told_that_they_are_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Stage] = []
    imported = threading.Event()
    monkeypatch.setattr(libraries, "_thread", None)
    monkeypatch.setattr(libraries, "_import", imported.wait)

    def tell(progress: Progress) -> None:
        told.append(progress.stage)
        imported.set()

    libraries.wait(tell, modules=("a_module_that_is_not_here",))
    assert set(told) == {Stage.IMPORTING}


def test_the_import_waits_while_a_page_is_drawn_and_goes_on_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    way, past = libraries._MakesWay(), threading.Event()

    def import_one() -> None:
        way.find_spec("a_module")
        past.set()

    monkeypatch.setattr(libraries, "LONGEST_WAY_SECONDS", WAIT_SECONDS)
    thread = threading.Thread(target=import_one, daemon=True)
    monkeypatch.setattr(libraries, "_thread", thread)
    with libraries.drawing():
        thread.start()
        with libraries.drawing():  # another session's page
            pass
        assert not past.is_set()
    assert past.wait(WAIT_SECONDS)


def test_no_page_is_drawn_while_a_module_that_charts_look_at_is_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotly found pandas in `sys.modules` before pandas had its names: the first map was an error box."""
    importing, may_end, drawn = threading.Event(), threading.Event(), threading.Event()

    def import_slowly(_name: str) -> None:
        importing.set()
        assert may_end.wait(WAIT_SECONDS)

    def draw() -> None:
        with libraries.drawing():
            drawn.set()

    monkeypatch.setattr(libraries, "MODULES", (libraries.PEEKED_AT,))
    monkeypatch.setattr("pages.common.libraries.importlib.import_module", import_slowly)
    monkeypatch.setattr(libraries.gc, "freeze", lambda: None)
    importer, page = threading.Thread(target=libraries._import_all), threading.Thread(target=draw)
    with libraries.drawing():  # a page that began before
        importer.start()
        assert not importing.wait(0.05)
    assert importing.wait(WAIT_SECONDS)
    page.start()
    assert not drawn.wait(0.05)
    may_end.set()
    assert drawn.wait(WAIT_SECONDS)
    importer.join()
    page.join()


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Iterator[None]:
    """Activations were recorded earlier; the model cannot be loaded."""

    def fail(*_: Any, **__: Any) -> None:
        raise ModelError("It cannot be loaded.")

    monkeypatch.setattr(findings, "_kept", lambda *_: random_activations())
    monkeypatch.setattr(host, "_load", fail)
    host._make_room(0)
    findings._findings.clear()
    yield
    findings._findings.clear()


@pytest.mark.usefixtures("saved")
def test_saved_activations_are_shown_without_waiting_for_the_model() -> None:
    app = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS).run()
    app.button(key="find-here").click().run()
    (job,) = [job for key, job in jobs.registry()._jobs.items() if key.startswith("find-")]
    assert job.wait(WAIT_SECONDS) and job.error is None
    opened = AppTest.from_file(str(APP), default_timeout=WAIT_SECONDS).run()
    assert "Gate found earlier" in [button.label for button in opened.button]
