"""Which (prompt, setting) pairs go through the model together: a plan that depends on a run's settings alone.

Pure functions of numbers; knows nothing about models, text or steering.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cna_core.evaluation.measures.contract import Reads
from cna_core.evaluation.runs import SetName


@dataclass(frozen=True)
class Batch:
    """Pairs that are computed together and written down together.

    Args:
        number: its place in the plan.
        reads: whether answers are written, or only first tokens read.
        prompt_set: the set of all its prompts.
        cells: (place of the prompt, place of the setting), prompt by prompt.
    """

    number: int
    reads: Reads
    prompt_set: SetName
    cells: tuple[tuple[int, int], ...]

    @property
    def prompts(self) -> tuple[int, ...]:
        """Places of the prompts that occur, in order."""
        return tuple(dict.fromkeys(prompt for prompt, _ in self.cells))


def planned_batches(
    work: Sequence[tuple[Reads, SetName, Sequence[int]]], settings: int, rows: int
) -> tuple[Batch, ...]:
    """All settings of every prompt, several prompts together where they fit.

    Prompts of similar length share a batch, since all rows are padded to the longest. Where a prompt alone has more
    settings than `rows`, they are cut into parts of equal size.

    Args:
        work: what is read on which set, in the order it is to be done, with its prompts' lengths in tokens.
        settings: how many there are.
        rows: in a batch, at most.
    """
    parts = -(-settings // rows)
    spans = [range(part * settings // parts, (part + 1) * settings // parts) for part in range(parts)]
    together = max(1, rows // settings)
    batches: list[Batch] = []
    for reads, prompt_set, lengths in work:
        order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
        for start in range(0, len(order), together):
            for span in spans:
                pairs = tuple((prompt, setting) for prompt in order[start : start + together] for setting in span)
                batches.append(Batch(len(batches), reads, prompt_set, pairs))
    return tuple(batches)
