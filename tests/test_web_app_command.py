"""Where `refusal-gate app` listens, and what it says before it listens to others."""

import itertools
import runpy
import sys

import pytest

from cna_core.cli.web_app import app, is_loopback
from cna_core.errors import CnaError


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
    app(host="0.0.0.0", everyone=True)
    assert started[0][started[0].index("--server.address") + 1] == "0.0.0.0"
    said = capsys.readouterr().err
    assert "without a password" in said
    assert "CNA_STRENGTH_LIMIT=0" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_it_refuses_to_listen_elsewhere_until_that_is_confirmed(started: list[list[str]], host: str) -> None:
    with pytest.raises(CnaError, match=r"without a password.*--everyone"):
        app(host=host)
    assert started == []


def test_a_browser_reaches_it_under_names_of_this_machine_only(started: list[list[str]]) -> None:
    app()
    names = [value for flag, value in itertools.pairwise(started[0]) if flag == "--server.allowedHosts"]
    assert names == ["127.0.0.1", "localhost", "::1"]
    app(host="0.0.0.0", everyone=True)
    assert "--server.allowedHosts" not in started[1]


def test_an_address_for_streamlit_is_not_used_and_that_is_said(
    started: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    app()
    assert started[0][started[0].index("--server.address") + 1] == "127.0.0.1"
    assert "STREAMLIT_SERVER_ADDRESS is not used" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_only_this_machine_reaches_a_loopback_address(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_others_may_reach_any_other_address(host: str) -> None:
    assert not is_loopback(host)
