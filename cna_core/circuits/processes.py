"""Several processes for one job, started by `torchrun` or `accelerate launch` on one machine or many.

Each does its share, and all end with the same result. Without such a launcher there is one process, and accelerate is
not used.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process's position among all processes.

    Args:
        place: its number, from 0.
        count: the number of processes.
        writes: whether it is the process that writes files on its machine.
    """

    place: int = 0
    count: int = 1
    writes: bool = True

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's share: every `count`-th item, so that items sorted by size are shared evenly."""
        return list(items[self.place :: self.count])

    def gather(self, item: Item) -> list[Item]:
        """Every process's item, in the order of the processes, in every process; tensors must be on the CPU."""
        if self.count == 1:
            return [item]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([item])
        return gathered


def processes_for(device: torch.device) -> Processes:
    """The processes that a launcher started, connected by a backend for `device`."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    from accelerate import PartialState

    state: Any = PartialState(cpu=device.type == "cpu")
    return Processes(state.process_index, state.num_processes, state.is_local_main_process)
