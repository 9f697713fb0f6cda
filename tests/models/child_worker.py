"""A child process for test_child.py."""

import os
import sys
import threading
from typing import Any

from cna_core.errors import ModelError
from cna_core.models.child import report_from_child
from cna_core.progress import Report, Stage, tell


def work(progress: Report) -> Any:
    sys.stdout.write("chatter of some library\n")
    tell(progress, Stage.FETCHING, 1, 2, "bytes", subject="half")
    tell(progress, Stage.WAITING_FOR_MODEL, place=3)
    return {"parent": os.getppid()}


def complain(progress: Report) -> Any:
    raise ModelError("This file is damaged: download it again.", code="file-damaged")


def crash(progress: Report) -> Any:
    return 1 // 0


def hang(progress: Report) -> Any:
    tell(progress, Stage.STARTING, subject=str(os.getpid()))
    threading.Event().wait()


if __name__ == "__main__":
    report_from_child({"work": work, "complain": complain, "crash": crash, "hang": hang}[sys.argv[1]])
