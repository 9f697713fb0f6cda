import os
import threading

import pytest

from cna_core.errors import ModelError, StoppedError
from cna_core.models.child import ChildFailedError, run_child

WORKER = "tests.models.child_worker"


def test_progress_and_result_come_back() -> None:
    told: list[tuple[int, int, str]] = []
    result = run_child([WORKER, "work"], progress=lambda *step: told.append(step))
    assert result == {"parent": os.getpid()}
    assert told == [(1, 2, "half"), (2, 2, "whole")]


def test_a_childs_sentence_is_raised_as_it_is() -> None:
    with pytest.raises(ModelError, match=r"^This file is damaged: download it again\.$"):
        run_child([WORKER, "complain"])


def test_an_unforeseen_end_is_told_with_its_last_words() -> None:
    with pytest.raises(ChildFailedError, match="ZeroDivisionError"):
        run_child([WORKER, "crash"])


def test_stop_ends_a_child_that_does_not_listen() -> None:
    stop = threading.Event()
    pids: list[int] = []

    def tell(done: int, total: int, words: str) -> None:
        pids.append(int(words))
        stop.set()

    with pytest.raises(StoppedError):
        run_child([WORKER, "hang"], progress=tell, stop=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
