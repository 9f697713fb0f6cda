"""Claims about reusing what the model has read."""

import pytest
import torch

from cna_core.decoding.lanes import Lane, first_token_logits, generate
from cna_core.decoding.prefix_cache import PrefixCaches, message_prefix
from cna_core.decoding.row_batch import RowBatch
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import Message, as_messages, encode
from tests.decoding.models import loud_model, sliding_window_model, spread_circuit

SYSTEM = "you can help tell me about the bread yes no it is what how do i bake"
HISTORY: list[Message] = [
    *as_messages("tell me about cats", SYSTEM),
    {"role": "assistant", "content": "cats cannot bake bread to you"},
]
STRENGTHS = (0.0, 1.0, 2.0, -1.0)


def conversation(text: str, history: list[Message] | None = None) -> list[Message]:
    return [*(history or []), {"role": "user", "content": text}]


@pytest.fixture(scope="module", params=[loud_model, sliding_window_model])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.param()


def test_a_known_prefix_changes_no_logits(model: LoadedModel) -> None:
    circuit, prefixes = spread_circuit(model), PrefixCaches(model)
    for text in ("why", "tell me about the lock", "how do i break it"):
        lanes = [Lane(conversation(text, HISTORY), strength) for strength in STRENGTHS]
        expected = first_token_logits(model, lanes, circuit)
        torch.testing.assert_close(
            first_token_logits(model, lanes, circuit, prefixes=prefixes), expected, atol=1e-5, rtol=0
        )
    assert len(prefixes) == len(STRENGTHS)


def test_lanes_of_different_histories_and_lengths_stay_exact(model: LoadedModel) -> None:
    circuit, prefixes = spread_circuit(model), PrefixCaches(model)
    longer = [*HISTORY, *as_messages("why"), {"role": "assistant", "content": "no"}]
    for text in ("why", "how do i break it"):
        lanes = [
            Lane(conversation(text), 1.0),
            Lane(conversation(text, HISTORY), 1.0),
            Lane(conversation(text + " yes yes yes", longer), 1.0),
            Lane(conversation(text, longer)),
        ]
        plain = list(generate(model, lanes, circuit, max_new_tokens=6))
        assert list(generate(model, lanes, circuit, max_new_tokens=6, prefixes=prefixes)) == plain


def test_an_answer_is_the_same_whether_its_prefix_was_known_or_not(model: LoadedModel) -> None:
    circuit, prefixes = spread_circuit(model), PrefixCaches(model)
    lanes = [Lane(conversation("why", HISTORY), strength) for strength in STRENGTHS]
    first = first_token_logits(model, lanes, circuit, prefixes=prefixes)
    assert torch.equal(first_token_logits(model, lanes, circuit, prefixes=prefixes), first)


def test_a_known_prefix_is_not_read_again(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, prefixes = spread_circuit(model), PrefixCaches(model)
    read: list[int] = []
    through = RowBatch._pass

    def counting(batch: RowBatch, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        read.append(tokens.shape[1])
        return through(batch, tokens, *rest)

    monkeypatch.setattr(RowBatch, "_pass", counting)
    for text in ("why", "yes"):
        first_token_logits(model, [Lane(conversation(text, HISTORY), 1.0)], circuit, prefixes=prefixes)
    length = len(encode(model, conversation("why", HISTORY)))
    prefix = length - len(encode(model, conversation("why"))) + 2  # <s> and <user> of the message's own template
    assert read == [prefix, length - prefix, length - prefix]


def test_a_longer_history_continues_from_the_shorter_one(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, prefixes = spread_circuit(model), PrefixCaches(model)
    first_token_logits(model, [Lane(conversation("why", HISTORY), 1.0)], circuit, prefixes=prefixes)
    longer = [*conversation("why", HISTORY), {"role": "assistant", "content": "no"}]
    lanes = [Lane(conversation("yes", longer), 1.0)]
    expected = first_token_logits(model, lanes, circuit)
    torch.testing.assert_close(
        first_token_logits(model, lanes, circuit, prefixes=prefixes), expected, atol=1e-5, rtol=0
    )
    assert len(prefixes) == 2


def test_another_circuit_finds_nothing(model: LoadedModel) -> None:
    prefixes = PrefixCaches(model)
    for seed in (1, 2):
        circuit = spread_circuit(model, seed=seed)
        lanes = [Lane(conversation("why", HISTORY), 1.0)]
        expected = first_token_logits(model, lanes, circuit)
        found = first_token_logits(model, lanes, circuit, prefixes=prefixes)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(prefixes) == 2


def test_the_least_recently_used_prefixes_leave_first(model: LoadedModel) -> None:
    circuit, prefixes = spread_circuit(model), PrefixCaches(model)
    lanes = [Lane(conversation("why", HISTORY), strength) for strength in STRENGTHS]
    first_token_logits(model, lanes, circuit, prefixes=prefixes)
    prefixes.kept_bytes = prefixes.size_bytes // 2
    first_token_logits(model, lanes[:1], circuit, prefixes=prefixes)
    assert len(prefixes) == 2
    assert any(not key[1] for key in prefixes._known)  # the unsteered one was used last


def test_the_prefix_ends_where_the_last_message_begins(model: LoadedModel) -> None:
    tokens = encode(model, conversation("why", HISTORY))
    length = message_prefix(model, conversation("why", HISTORY), tokens)
    assert model.tokenizer.decode(tokens[:length]).endswith("<user>")
    assert model.tokenizer.decode(tokens[length:]).startswith("why")


def test_what_one_model_read_is_not_given_to_another(model: LoadedModel) -> None:
    other = loud_model()
    with pytest.raises(ValueError, match="another model"):
        first_token_logits(model, [Lane("why")], None, prefixes=PrefixCaches(other))
