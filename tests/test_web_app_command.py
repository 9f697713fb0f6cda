"""Where `refusal-gate app` listens, and what it says before it listens to others."""

import runpy
import sys

import pytest

from cna_core.cli.web_app import app, is_loopback


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that Streamlit would be started with; nothing listens."""
    commands: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["refusal-gate", "app"])
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: commands.append(list(sys.argv)))
    return commands


def test_it_listens_on_this_machine_alone_without_a_word(
    started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    app()
    assert started[0][started[0].index("--server.address") + 1] == "127.0.0.1"
    assert capsys.readouterr().err == ""


def test_it_says_what_listening_elsewhere_means(started: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    app(host="0.0.0.0")
    assert started[0][started[0].index("--server.address") + 1] == "0.0.0.0"
    said = capsys.readouterr().err
    assert "without a password" in said
    assert "CNA_STRENGTH_LIMIT=0" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_others_may_reach_any_other_address(host: str) -> None:
    assert not is_loopback(host)
