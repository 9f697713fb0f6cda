"""Rows as a tree: nothing twice, and what a model reads in it is what it reads in the rows."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cna_core.circuits.last_tokens import last_token_neurons, reads_trees, run_prefix
from cna_core.circuits.token_tree import TokenTree, tree_batches
from cna_core.errors import ModelError
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12)


def test_what_rows_begin_with_stands_in_the_tree_once() -> None:
    tree = TokenTree.of([[5, 6, 7], [5, 6], [5, 8, 7]])
    assert tree.tokens.tolist() == [5, 6, 7, 8, 7]
    assert tree.depths.tolist() == [0, 1, 2, 1, 2]
    assert tree.ends.tolist() == [2, 1, 4]
    assert tree.ancestors.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


@given(ROWS)
def test_the_ancestors_of_an_end_spell_its_row(rows: list[list[int]]) -> None:
    tree = TokenTree.of(rows)
    assert len(tree) == len({tuple(row[: length + 1]) for row in rows for length in range(len(row))})
    for row, end in zip(rows, tree.ends.tolist(), strict=True):
        path = tree.ancestors[end]
        assert tree.tokens[path].tolist() == row
        assert tree.depths[path].tolist() == list(range(len(row)))


def test_the_mask_lets_every_node_see_the_prefix_and_its_own_ancestors() -> None:
    mask = TokenTree.of([[1, 2], [3]]).mask(2, torch.float32)
    assert (mask == 0)[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert mask.dtype == torch.float32 and mask.shape == (1, 1, 3, 5)


@given(ROWS, st.integers(1, 20))
def test_tree_batches_hold_every_row_once_within_the_budget(rows: list[list[int]], budget: int) -> None:
    batches = tree_batches(dict(enumerate(rows)), budget)
    assert sorted(number for batch in batches for number in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or len(TokenTree.of([rows[number] for number in batch])) <= budget


def test_batches_are_alike_in_size_and_no_more_than_needed() -> None:
    rows = {number: [number, *range(9)] for number in range(7)}  # ten nodes each, nothing shared
    assert [len(batch) for batch in tree_batches(rows, 30)] == [3, 3, 1]
    assert [len(batch) for batch in tree_batches(rows, 40)] == [4, 3]
    assert [len(batch) for batch in tree_batches(rows, 60)] == [4, 3]
    assert tree_batches({}, 30) == []


def test_the_last_layer_is_computed_where_it_is_read_and_no_further(tiny_model: LoadedModel) -> None:
    rows = [encode(tiny_model, prompt) for prompt in ("how do i bake", "why", "tell me")]
    first, last = (tiny_model.network.model.layers[index].mlp for index in (0, -1))
    seen: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output.shape[1])

    modules = {"first": first.up_proj, "up": last.up_proj, "gate": last.gate_proj, "down": last.down_proj}
    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    with torch.no_grad():
        as_tree = last_token_neurons(tiny_model, rows, as_tree=True)
        assert seen == {"first": len(TokenTree.of(rows)), "up": 3, "gate": 3, "down": 3}
        torch.testing.assert_close(as_tree, last_token_neurons(tiny_model, rows), rtol=1e-4, atol=1e-6)
        seen.clear()
        last_token_neurons(tiny_model, rows[:1], as_tree=True)  # a lone row would take bfloat16's other kernels
    assert seen["up"] == len(rows[0])
    for handle in handles:
        handle.remove()


def test_a_tree_shows_the_neurons_that_padded_rows_show(tiny_model: LoadedModel) -> None:
    rows = [encode(tiny_model, prompt) for prompt in ("how do i bake", "how do i break the lock", "why", "how do i")]
    shared = 2
    assert len({tuple(row[:shared]) for row in rows}) == 1
    prefix = run_prefix(tiny_model, rows[0][:shared])
    suffixes = [row[shared:] for row in rows]
    assert reads_trees(tiny_model, max(map(len, rows)))
    with torch.no_grad():
        as_tree = last_token_neurons(tiny_model, suffixes, prefix, as_tree=True)
        padded = last_token_neurons(tiny_model, suffixes, prefix)
    hidden = 2 * tiny_model.identity.layers * tiny_model.network.config.hidden_size  # layers' inputs and MLP outputs
    assert as_tree.shape == (4, tiny_model.layout.total + hidden)
    torch.testing.assert_close(as_tree, padded, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("sliding_window", 4), ("attention_chunk_size", 4), ("alibi", True), ("layer_types", ["conv"])],
)
def test_models_that_look_elsewhere_are_not_given_trees(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, setting: str, value: object
) -> None:
    assert reads_trees(tiny_model, 5)
    monkeypatch.setattr(tiny_model.network.config, setting, value, raising=False)
    assert not reads_trees(tiny_model, 5)


def test_a_layer_that_leaves_no_keys_is_said(tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [encode(tiny_model, prompt) for prompt in ("how do i bake", "why", "tell me")]
    attention = tiny_model.network.model.layers[1].self_attn
    monkeypatch.setattr(attention, "forward", lambda hidden_states, **_: (hidden_states, None))
    with torch.no_grad(), pytest.raises(ModelError, match="prompts cannot share"):
        run_prefix(tiny_model, rows[0][:2])
