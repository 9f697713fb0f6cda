"""Claims about looking at one token: its probabilities, its neurons, and going on from an alternative."""

import numpy as np
import pytest
import torch

from cna_core.decoding.inspection import begun_steps, branched, read_again, token_card
from cna_core.decoding.lanes import Lane, generate
from cna_core.errors import PromptError
from cna_core.interventions.change import NEUTRAL
from cna_core.interventions.plan import steered
from cna_core.interventions.scale import Scale
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode
from tests.decoding.models import loud_model, sliding_window_model, spread_circuit, tokens_by_lane
from tests.interventions.test_plan import hook_count

MESSAGE = "how do i break the lock"
PLACE = 4


@pytest.fixture(scope="module", params=["loud", "sliding"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return loud_model() if request.param == "loud" else sliding_window_model()


@pytest.fixture
def written(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What a baseline and an ablated lane write."""
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    return tokens_by_lane(list(generate(model, lanes(), spread_circuit(model, size=40), max_new_tokens=8)), 2)


def lanes() -> list[Lane]:
    return [Lane(MESSAGE), Lane(MESSAGE, strength=1.0)]


def probabilities(model: LoadedModel, text: list[int], multiplier: float) -> torch.Tensor:
    with torch.inference_mode(), steered(model, spread_circuit(model, size=40), [multiplier]):
        return model.network(input_ids=torch.tensor([text])).logits[0, -1].double().softmax(-1)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_card_tells_what_both_models_would_have_written_after_the_same_text(
    model: LoadedModel, written: list[list[int]], lane: int
) -> None:
    circuit = spread_circuit(model, size=40)
    card = token_card(model, lanes()[lane], written[lane], PLACE, circuit, beside=lanes()[1])
    text = encode(model, MESSAGE) + written[lane][:PLACE]
    baseline, ablated = probabilities(model, text, 1.0), probabilities(model, text, 0.0)
    assert len(card.alternatives) == 10
    for one in card.alternatives:
        assert one.baseline == pytest.approx(float(baseline[one.token]), abs=1e-5)
        assert one.steered == pytest.approx(float(ablated[one.token]), abs=1e-5)
    own = (baseline, ablated)[lane]
    assert card.alternatives[0].token == card.token == written[lane][PLACE] == int(own.argmax())
    assert card.surprise == pytest.approx(-float(own.log()[card.token]), abs=1e-4)
    assert card.divergence == pytest.approx(float((ablated * (ablated / baseline).log()).sum()), abs=1e-4)
    assert hook_count(model) == 0


def test_without_steering_here_is_the_steered_history_read_on_by_the_untouched_model(
    written: list[list[int]], model: LoadedModel
) -> None:
    circuit = spread_circuit(model, size=40)
    text = encode(model, MESSAGE) + written[1][:PLACE]
    with torch.inference_mode():
        with steered(model, circuit, [0.0]):
            cache = model.network(input_ids=torch.tensor([text[:-1]]), use_cache=True).past_key_values
        expected = model.network(input_ids=torch.tensor([text[-1:]]), past_key_values=cache).logits[0, -1].softmax(-1)
    card = token_card(model, lanes()[1], written[1], PLACE, circuit)
    for one in card.alternatives:
        assert one.without_steering_here == pytest.approx(float(expected[one.token]), abs=1e-5)
    assert any(abs(one.without_steering_here - one.steered) > 1e-3 for one in card.alternatives)


def test_the_neurons_of_a_card_are_those_that_fire_most_before_they_are_changed(
    model: LoadedModel, written: list[list[int]]
) -> None:
    circuit = spread_circuit(model, size=40)
    card = token_card(model, lanes()[1], written[1], 0, circuit)
    sizes = [abs(one.activation) for one in card.neurons]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 0
    top = circuit.part(slice(0, 1))
    only = token_card(model, lanes()[1], written[1], 0, top).neurons[0]
    alone = read_again(model, encode(model, MESSAGE), [NEUTRAL], top)
    assert only.baseline * np.sign(only.delta) == pytest.approx(float(alone.activity[0, -1, 0]), abs=1e-5)


def test_reading_again_tells_the_activity_that_the_decode_recorded(
    model: LoadedModel, written: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit, prompt = spread_circuit(model, size=40), encode(model, MESSAGE)
    steps = list(generate(model, lanes(), circuit, max_new_tokens=8, measure=True))
    mine = [step for step in steps if step.lane == 1]
    for unsteered in (0, len(prompt)):
        if unsteered:
            options = {"max_new_tokens": 8, "measure": True, "steer_prompt": False}
            mine = [step for step in generate(model, lanes(), circuit, **options) if step.lane == 1]
        text = [*prompt, *(step.token_id for step in mine)]
        reading = read_again(model, text, [NEUTRAL, Scale(circuit).change(1.0)], circuit, steered_from=unsteered)
        start = len(prompt)
        assert reading.activity[1, start - 1 : -1] == pytest.approx(
            np.array([step.layer_activity for step in mine]), abs=1e-4
        )
        assert reading.divergence[1, start:] == pytest.approx([step.divergence for step in mine], abs=1e-4)
        assert reading.logprobs[1, start:] == pytest.approx([step.chances.logprob for step in mine], abs=1e-4)


def test_a_card_of_an_answer_whose_prompt_was_not_steered_knows_it(
    model: LoadedModel, written: list[list[int]]
) -> None:
    circuit = spread_circuit(model, size=40)
    first = token_card(model, lanes()[1], written[1], 0, circuit, steer_prompt=False)
    assert first.divergence == pytest.approx(0.0, abs=1e-9)
    options = {"max_new_tokens": 8, "record": True, "steer_prompt": False}
    mine = [step for step in generate(model, lanes(), circuit, **options) if step.lane == 1]
    tokens = [step.token_id for step in mine]
    card = token_card(model, lanes()[1], tokens, PLACE, circuit, steer_prompt=False)
    assert card.surprise == pytest.approx(-mine[PLACE].chances.logprob, abs=1e-4)


def test_going_on_from_the_chosen_token_writes_the_same_answer(model: LoadedModel, written: list[list[int]]) -> None:
    circuit = spread_circuit(model, size=40)
    tokens = written[1]
    begun = [branched(lane, tokens, PLACE, tokens[PLACE]) for lane in lanes()]
    baseline, ablated = tokens_by_lane(list(generate(model, begun, circuit, max_new_tokens=3)), 2)
    assert ablated == tokens[PLACE + 1 :]
    assert baseline != ablated


def test_what_a_branch_begins_with_is_told_as_if_it_had_been_written(
    model: LoadedModel, written: list[list[int]]
) -> None:
    circuit = spread_circuit(model, size=40)
    steps = [
        step for step in generate(model, lanes(), circuit, max_new_tokens=PLACE + 1, measure=True) if step.lane == 1
    ]
    begun = begun_steps(model, branched(lanes()[1], written[1], PLACE, written[1][PLACE]), circuit, number=1)
    assert [step.token_id for step in begun] == [step.token_id for step in steps]
    assert "".join(step.text for step in begun) == "".join(step.text for step in steps)
    for mine, theirs in zip(begun, steps, strict=True):
        assert mine.layer_activity == pytest.approx(theirs.layer_activity, abs=1e-4)
        assert mine.divergence == pytest.approx(theirs.divergence, abs=1e-4)


def test_a_place_beyond_the_answer_is_refused(model: LoadedModel) -> None:
    with pytest.raises(PromptError, match="2 tokens"):
        token_card(model, Lane(MESSAGE), [1, 2], 2, spread_circuit(model))
