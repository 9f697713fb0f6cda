"""Progress on stderr: a live line that leaves nothing behind, or plain lines."""

import io

import pytest
from rich.console import Console

from cna_core.cli import progress_line as module
from cna_core.cli.progress_line import ProgressLine
from cna_core.cli.terminal import working
from cna_core.errors import StoppedError
from cna_core.progress import Progress, Stage, tell


def written(*, live: bool, works: list[Progress]) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=live, width=100, color_system=None, legacy_windows=False, _environ={})
    with ProgressLine(console) as line:
        for progress in works:
            line.report(progress)
    return file.getvalue()


def prompts(done: int) -> Progress:
    return Progress(Stage.CAPTURING, done, 4, "prompts")


def test_without_a_terminal_each_stage_begins_and_ends_with_a_plain_line() -> None:
    said = written(live=False, works=[Progress(Stage.LOADING, subject="[tiny]"), *map(prompts, range(5))])
    assert said.splitlines() == [
        "Loading [tiny]",
        "Recording activations: 0 of 4 prompts",
        "Recording activations: 4 of 4 prompts",
    ]


def test_without_a_terminal_a_long_stage_goes_on_with_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_LINE_SECONDS", 0.0)
    assert len(written(live=False, works=list(map(prompts, range(5)))).splitlines()) == 5


def test_on_a_terminal_the_line_is_drawn_and_taken_away() -> None:
    said = written(live=True, works=[prompts(1)])
    assert "Recording activations: 1 of 4 prompts" in said
    assert said.endswith("\x1b[2K")  # the last thing done is to empty the line


def test_parts_of_one_command_share_one_line_and_one_stop() -> None:
    with working() as outer:
        with working() as inner:
            assert inner == outer
        tell(outer["progress"], Stage.LOADING, subject="tiny")
    with working() as next_command:
        assert next_command["stop"] is not outer["stop"]


def test_ctrl_c_sets_stop_and_leaves_with_the_code_of_a_stop() -> None:
    with pytest.raises(StoppedError) as caught, working() as watching:
        raise KeyboardInterrupt
    assert watching["stop"].is_set()
    assert caught.value.exit_code == 130
