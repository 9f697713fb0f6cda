from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cna_core.evaluation.batches import planned_batches


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 30), st.integers(2, 20))
def test_every_prompt_meets_every_setting_once_and_no_batch_is_too_large(
    lengths: list[int], settings: int, rows: int
) -> None:
    batches = planned_batches([("answers", "harmful", lengths), ("first-token", "benign", lengths)], settings, rows)
    assert [batch.number for batch in batches] == list(range(len(batches)))
    for reads in ("answers", "first-token"):
        pairs = Counter(cell for batch in batches if batch.reads == reads for cell in batch.cells)
        assert pairs == Counter((prompt, setting) for prompt in range(len(lengths)) for setting in range(settings))
    assert all(0 < len(batch.cells) <= rows for batch in batches)


def test_prompts_share_a_batch_with_others_of_their_length() -> None:
    batches = planned_batches([("answers", "harmful", [9, 2, 8, 3])], settings=2, rows=5)
    assert [batch.prompts for batch in batches] == [(1, 3), (2, 0)]


def test_more_settings_than_rows_are_cut_into_even_parts() -> None:
    batches = planned_batches([("answers", "harmful", [5])], settings=10, rows=4)
    assert [len(batch.cells) for batch in batches] == [3, 3, 4]
