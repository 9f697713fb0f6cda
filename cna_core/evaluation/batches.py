"""The plan of batches: which (prompt, setting) pairs are computed together. It depends only on a run's settings.

Pure functions of numbers; this module knows nothing about models, text or steering.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cna_core.evaluation.measures.contract import Reads
from cna_core.evaluation.runs import SetName


@dataclass(frozen=True)
class Batch:
    """Pairs that are computed and saved together.

    Args:
        number: the index in the plan.
        reads: whether answers are generated, or only first tokens computed.
        prompt_set: the set that contains all its prompts.
        cells: (index of the prompt, index of the setting), prompt by prompt.
    """

    number: int
    reads: Reads
    prompt_set: SetName
    cells: tuple[tuple[int, int], ...]

    @property
    def prompts(self) -> tuple[int, ...]:
        """The indices of its prompts, in order."""
        return tuple(dict.fromkeys(prompt for prompt, _ in self.cells))


def planned_batches(
    work: Sequence[tuple[Reads, SetName, Sequence[int]]], settings: int, rows: int
) -> tuple[Batch, ...]:
    """Every prompt with all settings; a batch has several prompts if they fit.

    Prompts of similar length share a batch, because all rows are padded to the longest. If there are more settings than
    `rows`, a prompt's settings are split into parts of equal size.

    Args:
        work: what to compute on which set, in order, with the lengths of the prompts in tokens.
        settings: the number of settings.
        rows: the most rows of a batch.
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
