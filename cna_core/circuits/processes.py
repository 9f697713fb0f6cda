"""Several processes at one job: `torchrun` and `accelerate launch` start them, on one machine or many.

Each does its share and all end with the same result. Without such a launcher there is one process, and nothing of
accelerate is touched. Knows nothing about models or neurons.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Args:
        place: its number, from 0.
        count: how many there are.
        writes: whether it is the one that writes files on its machine.
    """

    place: int = 0
    count: int = 1
    writes: bool = True

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part of what all have: every `count`-th item, so that items in order of size part evenly."""
        return list(items[self.place :: self.count])

    def gather(self, item: Item) -> list[Item]:
        """Every process's item, in the order of the processes, in every process; tensors must be on the CPU."""
        if self.count == 1:
            return [item]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([item])
        return gathered


def processes_for(device: torch.device) -> Processes:
    """The processes that a launcher started, ready to talk to each other over what suits `device`."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    from accelerate import PartialState

    state: Any = PartialState(cpu=device.type == "cpu")
    return Processes(state.process_index, state.num_processes, state.is_local_main_process)
