"""Command lines and environment variables that make no sense: exit code 2 and one sentence, never a traceback."""

import sys

import pytest

from cna_core.cli import main
from cna_core.paths import cache_folder
from tests.hostile.inputs import shortly
from tests.hostile.outcome import checked, outcome

LINES = (
    ("attribute", "a/b@../x"),
    ("attribute", "../../etc"),
    ("attribute", "x\ud800"),
    ("attribute", "tiny", "--fraction", "nan"),
    ("attribute", "tiny", "--fraction", "0.1", "--top-k", "3"),
    ("attribute", "tiny", "--top-k", "1e9"),
    ("attribute", "tiny", "--layers", "<b>"),
    ("attribute", "tiny", "--positive", "/etc/passwd"),
    ("attribute", "tiny", "--positive", "public:../x"),
    ("attribute", "tiny", "--positive", "~nobody-at-all/x.txt"),
    ("attribute", "tiny", "--positive", "a" * 5000 + ".txt"),
    ("generate", "tiny", "--prompt", "x", "--strength", "one"),
    ("generate", "tiny", "--prompt", "x", "--max-new-tokens", "0"),
    ("generate", "tiny", "--prompt", "x", "--steer", "../x"),
    ("generate", "tiny", "--prompt", "x", "--circuit", "/dev/null"),
    ("generate", "tiny", "--prompt", "x", "--method", "../x"),
    ("serve", "tiny"),
    ("serve", "tiny", "--circuit", "../x=/dev/null"),
    ("serve", "tiny", "--method", "direction", "--host", "0.0.0.0"),
    ("serve", "tiny", "--method", "direction", "--api-key-env", "NO SUCH"),
    ("serve", "tiny", "--port", "99999999"),
    ("app", "--port", "-1"),
    ("app", "--host", "0.0.0.0"),
    ("app", "--host", "not a host", "--everyone", "--port", "8999"),
    ("cache", "--trim", "many"),
    ("table", "/etc/passwd"),
    ("table", "/dev/null"),
    ("table", "a" * 5000),
    ("compare", "/etc/passwd", "/etc/passwd"),
    ("report", "/etc/passwd"),
    ("report", "."),
    ("no-such-command",),
    ("--no-such-option",),
)


def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """What the command says on stderr before it exits with code 2."""
    monkeypatch.setattr(sys, "argv", ["refusal-gate", *line])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == 2, (end.value.code, said.err[-300:])
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("line", LINES, ids=shortly)
def test_a_command_that_makes_no_sense_ends_with_one_sentence(
    line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, capsys, *line).strip()


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("CNA_STRENGTH_LIMIT", "much", ("app",)),
        ("CNA_STRENGTH_LIMIT", "1e999", ("app",)),
        ("CNA_STRENGTH_LIMIT", "nan", ("app",)),
        ("CNA_HOST", "0.0.0.0", ("app",)),
        ("CNA_PORT", "no", ("app",)),
        ("CNA_PUBLIC_SETS", "~nobody-at-all/x", ("attribute", "tiny", "--positive", "public:jbb-harmful")),
        ("CNA_PUBLIC_SETS", "a" * 5000, ("attribute", "tiny", "--positive", "public:jbb-harmful")),
        ("CNA_PLUGINS", "/no/such/file.py", ("generate", "tiny", "--prompt", "x")),
    ],
    ids=shortly,
)
def test_a_variable_that_makes_no_sense_ends_with_one_sentence(
    variable: str,
    value: str,
    line: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert ended(monkeypatch, capsys, *line).strip()


@pytest.mark.parametrize("folder", ["/dev/null/x", "~nobody-at-all/x"])
def test_a_cache_folder_that_cannot_be_is_refused_in_one_sentence(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNA_HOME", folder)
    said = outcome(cache_folder, "runs")
    assert isinstance(said, str) and "CNA_HOME" in checked(said)
