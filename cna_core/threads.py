"""How threads share the cores: torch's among themselves, and with Python's, which draw pages and serve requests.

Two habits of the platform are made for a program that has the machine to itself:

- A Python thread that wants the interpreter's lock waits up to 5 ms before it is handed over. Each of a model's few
  thousand operations a token gives the lock away and asks for it again, so that one busy thread beside it (a page being
  drawn) makes the model many times slower.
- An OpenMP thread that has finished its share waits for the others in a loop that keeps its core busy, for
  milliseconds, although another program, or another thread of this one, needs the core.

`benchmarks/threads.py` measures both. Knows only the standard library: it must run before torch is imported.
"""

import os
import sys

SWITCH_SECONDS = 1e-4
"""After so long a thread hands the interpreter's lock over (Python: 5e-3)."""
SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN_COUNT = "10000"
"""So many turns of the waiting loop before a thread sleeps (GNU OpenMP: 300,000)."""
OTHER_VARIABLES = ("OMP_WAIT_POLICY",)
"""Who has set one of these has decided for themselves."""


def share_cores() -> None:
    """Let threads wait in a way that leaves the cores to others; call it before anything imports torch.

    What the environment says about waiting stays as it is, and so does a shorter interval.
    """
    sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))
    if not any(variable in os.environ for variable in OTHER_VARIABLES):
        os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)
