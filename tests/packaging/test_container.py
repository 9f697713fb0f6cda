"""What the container file copies is enough to install the project, and it keeps to itself."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (ROOT / "Containerfile").read_text(encoding="utf-8")


def names_in_wheel(source: Path, folder: Path) -> set[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return set(zipfile.ZipFile(next(folder.glob("*.whl"))).namelist())


def test_what_is_copied_gives_the_same_wheel_as_the_checkout(tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for sources in re.findall(r"^COPY (.+) \S+$", RECIPE, re.MULTILINE):
        for name in sources.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copied / name)
    assert names_in_wheel(copied, tmp_path / "one") == names_in_wheel(ROOT, tmp_path / "two")


def test_the_app_runs_as_an_unprivileged_user_on_the_loopback_address() -> None:
    after_installing = RECIPE.partition("pip install --no-cache-dir --no-deps .")[2]
    assert re.search(r"^USER (?!root)\w+$", after_installing, re.MULTILINE)
    assert "CNA_HOST=127.0.0.1" in after_installing
