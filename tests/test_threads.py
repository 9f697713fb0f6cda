"""Threads hand the interpreter's lock over early, and what a person set about waiting stays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cna_core.threads import SPIN_COUNT, SPIN_VARIABLE, SWITCH_SECONDS, share_cores

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(SPIN_VARIABLE, raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)


def test_the_lock_is_handed_over_early_and_threads_soon_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.setswitchinterval(0.005)
    share_cores()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
    assert os.environ[SPIN_VARIABLE] == SPIN_COUNT
    monkeypatch.delenv(SPIN_VARIABLE)


@pytest.mark.parametrize(("variable", "value"), [(SPIN_VARIABLE, "7"), ("OMP_WAIT_POLICY", "active")])
def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    share_cores()
    assert os.environ[variable] == value
    assert os.environ.get(SPIN_VARIABLE, "7") == "7"


def test_a_shorter_interval_stays() -> None:
    sys.setswitchinterval(1e-5)
    share_cores()
    assert sys.getswitchinterval() == pytest.approx(1e-5)


@pytest.mark.parametrize("module", ["app", "cna_core.cli"])
def test_app_and_command_line_share_the_cores_before_torch_is_imported(module: str) -> None:
    code = f"""
import sys, builtins
sys.path.insert(0, {str(ROOT)!r})
import cna_core.threads as threads
def shared():
    print("torch" in sys.modules)
    raise SystemExit
threads.share_cores = shared
import {module} as started
started.main()
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "False", ran.stderr[-500:]
