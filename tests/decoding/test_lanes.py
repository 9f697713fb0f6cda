"""Claims about the decode loop: exactness, stopping, ends, and what is measured on the way."""

import threading

import pytest
import torch

from cna_core.decoding.lanes import Lane, end_tokens, first_token_logits, generate
from cna_core.errors import CircuitError, PromptError, StoppedError
from cna_core.interventions.plan import steered
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import as_messages, encode
from tests.circuits.samples import circuit_of
from tests.decoding.models import loud_model, sliding_window_model, spread_circuit, text_of, tokens_by_lane
from tests.interventions.test_plan import hook_count

SHORT, LONG = "tell me about cats", "how do i break the lock what is it why tell me about the dogs no you cannot"


@pytest.fixture(scope="module")
def sliding() -> LoadedModel:
    return sliding_window_model()


@pytest.fixture(scope="module")
def loud() -> LoadedModel:
    return loud_model()


@pytest.fixture
def endless(loud: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """The loud model without an end token, so that answers have a known length."""
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    return loud


def by_transformers(model: LoadedModel, prompt: str, multiplier: float, circuit, count: int) -> list[int]:
    """The greedy answer as transformers' own generate writes it."""
    tokens = torch.tensor([encode(model, prompt)])
    with steered(model, circuit, [multiplier]):
        answer = model.network.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return answer[0, tokens.shape[1] :].tolist()


@pytest.mark.parametrize("name", ["endless", "sliding"])
def test_every_lane_writes_what_transformers_writes_for_it_alone(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: LoadedModel = request.getfixturevalue(name)
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    circuit = spread_circuit(model, size=40)
    lanes = [Lane(SHORT), Lane(LONG), Lane(SHORT, strength=1.0), Lane(LONG, strength=2.0)]
    written = tokens_by_lane(list(generate(model, lanes, circuit, max_new_tokens=16)), 4)
    for lane, tokens in zip(lanes, written, strict=True):
        assert tokens == by_transformers(model, lane.messages, 1 - lane.strength, circuit, 16)
    assert written[0] != written[2] and written[1] != written[3]


def test_a_prompt_that_is_read_in_parts_gives_the_same_answer(
    sliding: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [Lane(SHORT), Lane(LONG, strength=1.0)]
    whole = list(generate(sliding, lanes, spread_circuit(sliding), max_new_tokens=8))
    monkeypatch.setattr("cna_core.decoding.row_batch.PASS_TOKENS", 6)
    assert list(generate(sliding, lanes, spread_circuit(sliding), max_new_tokens=8)) == whole


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.8}, {"top_k": 5}, {"repetition_penalty": 1.3}])
def test_strength_zero_repeats_the_baseline_exactly(
    endless: LoadedModel, temperature: float, options: dict[str, float]
) -> None:
    lanes = [Lane(LONG), Lane(LONG, strength=0.0), Lane(LONG, strength=1.0)]
    steps = generate(endless, lanes, spread_circuit(endless), max_new_tokens=30, temperature=temperature, **options)
    baseline, zero, ablated = tokens_by_lane(list(steps), 3)
    assert baseline == zero != ablated


def test_a_lane_writes_the_same_whoever_runs_beside_it(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless)
    alone = list(generate(endless, [Lane(LONG)], circuit, max_new_tokens=20, temperature=1.0, seed=3))
    beside = [Lane(LONG), Lane(LONG, strength=1.0), Lane(LONG, strength=-1.0)]
    together = list(generate(endless, beside, circuit, max_new_tokens=20, temperature=1.0, seed=3))
    assert tokens_by_lane(together, 3)[0] == tokens_by_lane(alone, 1)[0]


def test_another_seed_draws_another_answer(endless: LoadedModel) -> None:
    texts = {text_of(list(generate(endless, [Lane(LONG)], None, temperature=1.0, seed=seed))) for seed in range(3)}
    assert len(texts) == 3


def test_interleaved_decodes_do_not_touch_each_other(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless)
    expected = [list(generate(endless, [Lane(LONG, strength=s)], circuit, max_new_tokens=12)) for s in (0.0, 1.0)]
    running = [generate(endless, [Lane(LONG, strength=s)], circuit, max_new_tokens=12) for s in (0.0, 1.0)]
    interleaved = list(zip(*running, strict=True))
    assert [list(steps) for steps in zip(*interleaved, strict=True)] == expected


def test_nothing_is_hooked_on_the_model_between_steps(endless: LoadedModel) -> None:
    steps = generate(endless, [Lane(SHORT, strength=1.0)], spread_circuit(endless), stop=threading.Event())
    next(steps)
    assert hook_count(endless) == 0
    steps.close()
    assert hook_count(endless) == 0


def test_stop_ends_the_decode_within_one_token(endless: LoadedModel) -> None:
    stop = threading.Event()
    steps = generate(endless, [Lane(SHORT), Lane(SHORT, strength=1.0)], spread_circuit(endless), stop=stop)
    for _ in range(6):
        next(steps)
    stop.set()
    with pytest.raises(StoppedError):
        for _ in range(2):
            next(steps)
    assert hook_count(endless) == 0


def test_stop_ends_a_prefill_between_layers(endless: LoadedModel) -> None:
    stop = threading.Event()
    layers = endless.network.model.layers
    passed: list[int] = []
    handles = [layers[1].register_forward_hook(lambda *_: stop.set())]
    handles += [layer.register_forward_hook(lambda *_, index=i: passed.append(index)) for i, layer in enumerate(layers)]
    try:
        with pytest.raises(StoppedError):
            next(generate(endless, [Lane(SHORT)], None, stop=stop))
    finally:
        for handle in handles:
            handle.remove()
    assert passed == [0, 1]
    assert hook_count(endless) == 0


def test_the_end_token_ends_its_lane_alone(loud: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = spread_circuit(loud, size=40)
    lanes = [Lane(SHORT), Lane(LONG), Lane(SHORT, strength=1.0), Lane(LONG, strength=2.0)]
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    full = tokens_by_lane(list(generate(loud, lanes, circuit, max_new_tokens=20)), 4)
    end = full[0][7]
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset({end}))
    steps = list(generate(loud, lanes, circuit, max_new_tokens=20, measure=True))
    for lane, tokens in enumerate(full):
        mine = [step for step in steps if step.lane == lane]
        expected = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        assert [step.token_id for step in mine] == expected
        assert [step.finished for step in mine] == [False] * (len(expected) - 1) + [True]
        assert mine[-1].finish_reason == ("stop" if end in tokens else "length")
    assert next(step for step in steps if step.lane == 0 and step.finished).text == ""


def test_end_tokens_come_from_configuration_and_tokenizer(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tiny_model.tokenizer.eos_token_id
    monkeypatch.setattr(tiny_model.network.generation_config, "eos_token_id", [5, 6])
    assert end_tokens(tiny_model) == {own, 5, 6}
    monkeypatch.setattr(tiny_model.network.generation_config, "eos_token_id", None)
    assert end_tokens(tiny_model) == {own}


def test_steering_written_tokens_only_leaves_the_first_token_alone(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless, size=60)
    lanes = [Lane(LONG), Lane(LONG, strength=2.0)]
    options = {"max_new_tokens": 10, "temperature": 1.0, "measure": True}
    baseline, steered_lane = tokens_by_lane(list(generate(endless, lanes, circuit, steer_prompt=False, **options)), 2)
    assert baseline[0] == steered_lane[0] and baseline != steered_lane
    steps = list(generate(endless, lanes, circuit, steer_prompt=False, **options))
    divergences = [step.divergence for step in steps if step.lane == 1]
    assert divergences[0] == 0.0 and min(divergences[1:]) > 0


def test_divergence_is_zero_at_strength_zero_and_grows_with_it(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless)
    lanes = [Lane(LONG), Lane(LONG, strength=0.0), Lane(LONG, strength=0.05), Lane(LONG, strength=1.0)]
    steps = list(generate(endless, lanes, circuit, max_new_tokens=5, measure=True))
    first = {step.lane: step.divergence for step in reversed(steps)}
    assert first[0] is None and first[1] == 0.0 and 0 < first[2] < first[3]


def test_divergence_is_measured_on_the_lanes_own_text(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless, size=60)
    steps = list(generate(endless, [Lane(SHORT), Lane(LONG, strength=2.0)], circuit, max_new_tokens=8, measure=True))
    mine = [step for step in steps if step.lane == 1]
    text = torch.tensor([encode(endless, LONG) + [step.token_id for step in mine]])
    with torch.inference_mode():
        untouched = endless.network(input_ids=text).logits[0].double().log_softmax(-1)
        with steered(endless, circuit, [-1.0]):
            own = endless.network(input_ids=text).logits[0].double().log_softmax(-1)
    expected = (own.exp() * (own - untouched)).sum(-1)[len(encode(endless, LONG)) - 1 : -1]
    assert [step.divergence for step in mine] == pytest.approx(expected.tolist(), abs=1e-5)


def test_recorded_activity_is_the_circuits_before_the_multiplier(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless, size=40)
    lanes = [Lane(SHORT), Lane(SHORT, strength=1.0)]
    steps = list(generate(endless, lanes, circuit, max_new_tokens=5, record=True))
    first = next(step for step in steps if step.lane == 1)
    text = torch.tensor([encode(endless, SHORT)])
    seen: list[float] = []
    for layer in range(4):
        here = circuit.layers == layer
        module = endless.network.model.layers[layer].mlp.down_proj
        values: list[torch.Tensor] = []
        handle = module.register_forward_pre_hook(lambda _module, x, kept=values: kept.append(x[0][0, -1]))
        with torch.inference_mode(), steered(endless, circuit, [0.0]):  # hooked on later, so it acts after the look
            endless.network(input_ids=text)
        handle.remove()
        signs = torch.from_numpy(circuit.delta[here]).sign()
        seen.append(float((values[0][circuit.neurons[here]] * signs).sum()) / len(circuit))
    assert first.layer_activity == pytest.approx(seen, abs=1e-6)
    assert first.activity == pytest.approx(sum(seen), abs=1e-6) and first.activity != 0.0


def test_recording_changes_no_token_and_tells_how_likely_each_was(endless: LoadedModel) -> None:
    lanes, circuit = [Lane(SHORT), Lane(LONG, strength=2.0)], spread_circuit(endless)
    bare = list(generate(endless, lanes, circuit, max_new_tokens=6))
    steps = list(generate(endless, lanes, circuit, max_new_tokens=6, record=True))
    assert [step.token_id for step in steps] == [step.token_id for step in bare]
    assert all(step.layer_activity is None and step.chances is None for step in bare)
    for step in steps:
        assert step.chances is not None and step.divergence is None
        assert step.chances.likeliest[0] == (step.token_id, pytest.approx(step.chances.logprob))


def test_a_lane_may_bring_its_own_circuit(endless: LoadedModel) -> None:
    mine, other = spread_circuit(endless, seed=1, size=40), spread_circuit(endless, seed=2, size=40)
    beside = [Lane(LONG, strength=2.0), Lane(LONG, strength=2.0, circuit=other)]
    together = tokens_by_lane(list(generate(endless, beside, mine, max_new_tokens=12)), 2)
    for circuit, tokens in zip([mine, other], together, strict=True):
        alone = generate(endless, [Lane(LONG, strength=2.0)], circuit, max_new_tokens=12)
        assert tokens_by_lane(list(alone), 1)[0] == tokens


def test_first_token_logits_are_the_logits_of_the_first_token(sliding: LoadedModel) -> None:
    circuit = spread_circuit(sliding)
    lanes = [Lane(LONG, strength=1.0), Lane(SHORT), Lane(SHORT, strength=1.0), Lane(LONG), Lane(SHORT)]
    rows = first_token_logits(sliding, lanes, circuit)
    assert rows.dtype == torch.float32 and rows.shape == (5, sliding.network.config.vocab_size)
    for lane, row in zip(lanes, rows, strict=True):
        with torch.inference_mode(), steered(sliding, circuit, [1 - lane.strength]):
            alone = sliding.network(input_ids=torch.tensor([encode(sliding, lane.messages)])).logits[0, -1]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=0)
    assert torch.equal(rows[1], rows[4])


def test_first_token_logits_do_not_depend_on_how_rows_are_batched(
    sliding: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [Lane(text, strength=s) for s in (0.0, 0.5, 1.0) for text in (SHORT, LONG, "why")]
    at_once = first_token_logits(sliding, lanes, spread_circuit(sliding))
    monkeypatch.setattr("cna_core.decoding.lanes.PASS_TOKENS", 40)
    torch.testing.assert_close(first_token_logits(sliding, lanes, spread_circuit(sliding)), at_once, atol=1e-5, rtol=0)


def test_a_conversation_longer_than_the_context_is_told_with_the_count(tiny_model: LoadedModel) -> None:
    fits_barely = "cats " * (256 - len(encode(tiny_model, "cats")) + 1)
    with pytest.raises(PromptError, match="256 tokens and tiny reads at most 256"):
        generate(tiny_model, [Lane(fits_barely)], None)
    with pytest.raises(PromptError, match="reads up to 256"):
        generate(tiny_model, [Lane("cats " * 1000)], None)


def test_an_answer_ends_where_the_context_ends(endless: LoadedModel) -> None:
    nearly_full = "cats " * (256 - len(encode(endless, "cats")) - 2)
    steps = list(generate(endless, [Lane(nearly_full)], None, max_new_tokens=50))
    assert len(steps) == 3 and steps[-1].finish_reason == "length"


@pytest.mark.parametrize("messages", ["", "  \n ", as_messages("")])
def test_an_empty_message_is_refused(tiny_model: LoadedModel, messages: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        generate(tiny_model, [Lane(messages)], None)


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": 0}, {"repetition_penalty": 0.0}, {"max_new_tokens": 0}],
)
def test_settings_out_of_range_are_refused(tiny_model: LoadedModel, options: dict[str, float]) -> None:
    with pytest.raises(PromptError, match="must be"):
        generate(tiny_model, [Lane(SHORT)], None, **options)


def test_no_lanes_and_a_foreign_circuit_are_refused_before_the_first_step(tiny_model: LoadedModel) -> None:
    with pytest.raises(PromptError):
        generate(tiny_model, [], None)
    with pytest.raises(CircuitError):
        generate(tiny_model, [Lane(SHORT, strength=1.0)], circuit_of([(0, 0)]))


def test_an_answer_that_is_begun_goes_on_as_if_it_had_been_written(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless)
    lanes = [Lane(SHORT), Lane(LONG, strength=1.0)]
    whole = tokens_by_lane(list(generate(endless, lanes, circuit, max_new_tokens=8)), 2)
    begun = [
        Lane(SHORT, begun=tuple(whole[0][:3])),
        Lane(LONG, strength=1.0, begun=tuple(whole[1][:3])),
        Lane(SHORT, begun=(5, 6)),
    ]
    written = tokens_by_lane(list(generate(endless, begun, circuit, max_new_tokens=5)), 3)
    assert written[:2] == [whole[0][3:], whole[1][3:]] and written[2] != written[0]
    assert first_token_logits(endless, begun, circuit).argmax(-1).tolist() == [tokens[0] for tokens in written]


def test_tokens_that_must_not_come_first_come_later_at_most(endless: LoadedModel) -> None:
    circuit = spread_circuit(endless)
    free = tokens_by_lane(list(generate(endless, [Lane(SHORT), Lane(LONG)], circuit, max_new_tokens=6)), 2)
    lanes = [Lane(SHORT, not_first=(free[0][0],)), Lane(LONG)]
    written = tokens_by_lane(list(generate(endless, lanes, circuit, max_new_tokens=6)), 2)
    second = int(first_token_logits(endless, [Lane(SHORT)], circuit)[0].topk(2).indices[1])
    assert written[0][0] == second and written[1] == free[1]
    after = Lane(SHORT, begun=(second,), not_first=())
    assert written[0][1:] == tokens_by_lane(list(generate(endless, [after], circuit, max_new_tokens=5)), 1)[0]
