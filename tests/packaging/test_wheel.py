"""The built wheel in an environment of its own, away from the checkout: everything is in it, and it works."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cna_core
from tests.tiny import tiny_llama

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
SHOWN_BY_THE_METHOD_PAGE = """
import sys
from streamlit.testing.v1 import AppTest
from cna_core.paths import APP
app = AppTest.from_file(str(APP / "app.py"), default_timeout=60).run()
app.switch_page("pages/method.py").run()
assert not app.exception, app.exception
print(len(app.dataframe), sys.modules["pages"].__file__)
"""


class Installed:
    """An environment that holds the wheel, and beside it only what this one's site-packages hold."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        venv.create(folder / "environment", with_pip=False)
        self.programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.programs / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--quiet", str(wheel)], check=True, cwd=folder)
        own = next((folder / "environment").rglob("site-packages"))
        (own / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))

    def run(self, *command: str | Path) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*map(str, command)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DISPLAY")}
        return kept | {"CNA_HOME": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an installer would that finds no wheel."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("elsewhere"), wheel)


def in_the_checkout(folder: str) -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return {name for name in names if name and (ROOT / name).exists()}


def test_the_wheel_holds_every_file_of_the_library_and_the_app_and_no_other(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    app = {f"cna_core/_app/{name}" for folder in ("pages", "assets", ".streamlit") for name in in_the_checkout(folder)}
    assert names == in_the_checkout("cna_core") | app | {"cna_core/_app/app.py"}


def test_the_installed_library_is_found_with_its_version_and_its_assets(installed: Installed) -> None:
    asked = "import cna_core as cna; print(cna.__version__, len(cna.PromptSet.builtin('benign').prompts), cna.__file__)"
    version, prompts, file = installed.run(installed.python, "-c", asked).stdout.split()
    assert version == cna_core.__version__
    assert int(prompts) == len(cna_core.PromptSet.builtin("benign").prompts)
    assert Path(file).is_relative_to(installed.folder)


def test_the_console_script_has_every_command(installed: Installed) -> None:
    script = installed.programs / "refusal-gate"
    assert installed.run(script, "--version").stdout.split()[1] == cna_core.__version__
    here = subprocess.run([sys.executable, "-m", "cna_core", "--help"], cwd=ROOT, capture_output=True, text=True)
    commands = here.stdout.partition("Commands:")[2]
    assert "attribute" in commands
    assert installed.run(script, "--help").stdout.endswith(commands)


def test_the_installed_script_finds_a_circuit_in_a_model(installed: Installed) -> None:
    tiny = tiny_llama()
    tiny.network.save_pretrained(installed.folder / "tiny")
    tiny.tokenizer.save_pretrained(installed.folder / "tiny")
    found = installed.run(
        installed.programs / "refusal-gate", "attribute", "tiny", "--top-k", "3", "--no-universal", "--out", "c.json"
    )
    assert "3 neurons" in found.stderr
    assert len(json.loads((installed.folder / "c.json").read_text())["neurons"]) == 3


def test_the_installed_app_shows_its_pages(installed: Installed) -> None:
    tables, pages = installed.run(installed.python, "-c", SHOWN_BY_THE_METHOD_PAGE).stdout.split()
    assert int(tables) > 0
    assert Path(pages).is_relative_to(installed.folder)


def test_the_installed_app_starts_from_any_folder_and_stops(installed: Installed) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(installed.programs / "refusal-gate"), "app", "--port", str(port)]
    with (installed.folder / "app.log").open("wb") as log, started(installed, command, log) as process:
        address = f"http://127.0.0.1:{port}/_stcore/health"
        assert health(address, process) == 200, (installed.folder / "app.log").read_text()
    assert process.returncode == 0


@contextlib.contextmanager
def started(installed: Installed, command: list[str], log: object) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, cwd=installed.folder, env=installed.environment(), stdout=log, stderr=log)  # type: ignore[call-overload]
    try:
        yield process
        process.terminate()
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def health(address: str, process: "subprocess.Popen[bytes]") -> int | None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1) as answer:
            return int(answer.status)
        time.sleep(0.1)
    return None
