import os
import threading

import pytest

from cna_core.errors import ModelError, StoppedError
from cna_core.models.child import ChildFailedError, run_child
from cna_core.progress import Progress, Stage

WORKER = "tests.models.child_worker"


def test_progress_and_result_come_back() -> None:
    told: list[Progress] = []
    result = run_child([WORKER, "work"], progress=told.append)
    assert result == {"parent": os.getpid()}
    assert told == [Progress(Stage.FETCHING, 1, 2, "bytes", subject="half"), Progress(Stage.WAITING_FOR_MODEL, place=3)]


def test_a_childs_error_is_raised_with_its_sentence_and_code() -> None:
    with pytest.raises(ModelError, match=r"^This file is damaged: download it again\.$") as caught:
        run_child([WORKER, "complain"])
    assert caught.value.code == "file-damaged"


def test_an_unforeseen_end_is_told_with_its_last_words() -> None:
    with pytest.raises(ChildFailedError, match="ZeroDivisionError"):
        run_child([WORKER, "crash"])


def test_stop_ends_a_child_that_does_not_listen() -> None:
    stop = threading.Event()
    pids: list[int] = []

    def tell(progress: Progress) -> None:
        pids.append(int(progress.subject))
        stop.set()

    with pytest.raises(StoppedError):
        run_child([WORKER, "hang"], progress=tell, stop=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
