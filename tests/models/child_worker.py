"""A child process for test_child.py."""

import os
import sys
import threading
from typing import Any

from cna_core.errors import ModelError
from cna_core.models.child import report_from_child
from cna_core.progress import Progress


def work(progress: Progress) -> Any:
    sys.stdout.write("chatter of some library\n")
    progress(1, 2, "half")
    progress(2, 2, "whole")
    return {"parent": os.getppid()}


def complain(progress: Progress) -> Any:
    raise ModelError("This file is damaged: download it again.")


def crash(progress: Progress) -> Any:
    return 1 // 0


def hang(progress: Progress) -> Any:
    progress(0, 0, str(os.getpid()))
    threading.Event().wait()


if __name__ == "__main__":
    report_from_child({"work": work, "complain": complain, "crash": crash, "hang": hang}[sys.argv[1]])
