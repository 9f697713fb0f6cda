"""Answers with a thought: what is thought and what is answer, and steering in one of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from torch import Tensor

from cna_core.circuits.circuit import Circuit
from cna_core.decoding.inspection import begun_steps, token_card
from cna_core.decoding.lanes import Lane, end_tokens, generate, requests
from cna_core.decoding.sampling import Sampler, Sampling
from cna_core.decoding.session import DecodeSession, Step
from cna_core.errors import PromptError
from cna_core.models.loaded import LoadedModel
from tests.decoding.models import spread_circuit, tokens_by_lane
from tests.thinking_models import INSTRUCTS, OPENS, SWITCH, thinking_model, with_template
from tests.tiny import CHAT_TEMPLATE

MESSAGE = "tell me about cats"
LIMIT = 14


class Scripted(Sampler):
    """Chooses given tokens first, and then the likeliest ones."""

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__(Sampling())
        self._script = list(script)

    def choose(self, logits: Tensor, seen: Sequence[Sequence[int]]) -> list[int]:
        return [self._script.pop(0)] if self._script else super().choose(logits, seen)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return thinking_model(SWITCH)


@pytest.fixture(scope="module")
def circuit(model: LoadedModel) -> Circuit:
    return spread_circuit(model, size=40)


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())


def ids(model: LoadedModel, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def written(
    model: LoadedModel, lanes: Sequence[Lane], scripts: Sequence[str], circuit: Circuit, steer_prompt: bool = True
) -> list[Step]:
    """The steps of lanes that begin with these words, and go on greedily."""
    asked = requests(model, lanes, circuit, max_new_tokens=LIMIT, record=True)
    asked = [replace(one, sampler=Scripted(ids(model, script))) for one, script in zip(asked, scripts, strict=True)]
    session = DecodeSession(model, end_tokens(model), watched=circuit, steer_prompt=steer_prompt)
    for one in asked:
        session.add(one)
    steps = []
    while session.answers:
        steps += session.step()
    return steps


def texts(steps: Sequence[Step]) -> tuple[str, str]:
    return "".join(step.thought for step in steps).strip(), "".join(step.text for step in steps).strip()


THOUGHT = "<think> how do i </think>"


@pytest.mark.parametrize(
    ("template", "script", "thought", "begins"),
    [
        (SWITCH, "<think> how do i </think> sure here", "how do i", "sure here"),
        (OPENS, "how do i </think> sure here", "how do i", "sure here"),
        (INSTRUCTS, "[THINK] how do i [/THINK] sure here", "how do i", "sure here"),
        (SWITCH, "sure here", "", "sure here"),
    ],
    ids=["switch", "opened by the template", "special tokens", "no thought"],
)
def test_thought_and_answer_come_apart(
    model: LoadedModel, circuit: Circuit, template: str, script: str, thought: str, begins: str
) -> None:
    model = with_template(model, template)
    steps = written(model, [Lane(MESSAGE, thinking=None)], [script], circuit)
    found, answer = texts(steps)
    assert found == thought
    assert answer.startswith(begins)
    assert steps[-1].thought_tokens == (len(ids(model, script)) - 2 if thought else 0)
    assert not steps[-1].in_thought


def test_a_thought_that_does_not_end_leaves_no_answer(model: LoadedModel, circuit: Circuit) -> None:
    steps = written(model, [Lane(MESSAGE, thinking=True)], ["<think> " + "how do " * 7], circuit)
    assert steps[-1].in_thought
    assert texts(steps)[1] == ""
    assert steps[-1].thought_tokens == LIMIT


def test_with_thinking_off_the_first_token_belongs_to_the_answer(model: LoadedModel) -> None:
    with_it, without = (
        list(generate(model, [Lane(MESSAGE, thinking=on)], None, max_new_tokens=3)) for on in (True, False)
    )
    assert tokens_by_lane(with_it, 1) != tokens_by_lane(without, 1)
    assert all(step.thought_tokens == 0 for step in without)


# --- steering by part ---


def by_lane(steps: Sequence[Step], lane: int) -> list[Step]:
    return [step for step in steps if step.lane == lane]


@pytest.fixture(scope="module")
def lanes() -> list[Lane]:
    both = Lane(MESSAGE, strength=1.0, thinking=True)
    return [Lane(MESSAGE, thinking=True), both, replace(both, steers="thought"), replace(both, steers="answer")]


@pytest.fixture
def steps(model: LoadedModel, circuit: Circuit, lanes: list[Lane]) -> list[Step]:
    return written(model, lanes, [THOUGHT] * 4, circuit)


def continued(model: LoadedModel, circuit: Circuit, strength: float) -> list[int]:
    """What a model with this strength everywhere writes after the thought."""
    lane = Lane(MESSAGE, strength=strength, thinking=True, begun=tuple(ids(model, THOUGHT)))
    count = LIMIT - len(lane.begun)
    return tokens_by_lane(list(generate(model, [lane], circuit, max_new_tokens=count)), 1)[0]


def test_the_answer_after_a_steered_thought_is_the_unsteered_models(
    model: LoadedModel, circuit: Circuit, steps: list[Step]
) -> None:
    count = len(ids(model, THOUGHT))
    unsteered, steered = continued(model, circuit, 0.0), continued(model, circuit, 1.0)
    assert unsteered != steered
    after = [[step.token_id for step in by_lane(steps, lane)][count:] for lane in range(4)]
    assert after == [unsteered, steered, unsteered, steered]


def test_the_thought_alone_is_steered_where_the_answer_is_not(model: LoadedModel, steps: list[Step]) -> None:
    count = len(ids(model, THOUGHT))
    baseline, both, thought, answer = (
        [step.chances.logprob for step in by_lane(steps, lane)][:count] for lane in range(4)
    )
    assert both != pytest.approx(baseline, abs=1e-3)
    assert thought == pytest.approx(both, abs=1e-4)
    assert answer == pytest.approx(baseline, abs=1e-4)


def test_each_step_has_a_token_of_every_lane_in_their_order(steps: list[Step]) -> None:
    assert [step.lane for step in steps] == [0, 1, 2, 3] * LIMIT


def test_without_thinking_the_answer_is_steered_from_the_beginning(model: LoadedModel, circuit: Circuit) -> None:
    lane = Lane(MESSAGE, strength=1.0)
    asked = [Lane(MESSAGE), lane, replace(lane, steers="thought"), replace(lane, steers="answer")]
    tokens = tokens_by_lane(list(generate(model, asked, circuit, max_new_tokens=8)), 4)
    assert tokens[0] == tokens[2] != tokens[1] == tokens[3]


def test_a_model_without_a_thought_has_none_to_steer(model: LoadedModel, circuit: Circuit) -> None:
    model = with_template(model, CHAT_TEMPLATE)
    with pytest.raises(PromptError, match="does not think"):
        generate(model, [Lane(MESSAGE, strength=1.0, steers="thought")], circuit)


@pytest.mark.parametrize("steer_prompt", [True, False])
@pytest.mark.parametrize("lane_number", [1, 2, 3])
def test_the_card_of_a_token_shows_the_steering_of_its_part(
    model: LoadedModel, circuit: Circuit, lanes: list[Lane], lane_number: int, steer_prompt: bool
) -> None:
    lane, count = lanes[lane_number], len(ids(model, THOUGHT))
    mine = written(model, [lanes[0], lane], [THOUGHT] * 2, circuit, steer_prompt)
    mine = by_lane(mine, 1)
    tokens = [step.token_id for step in mine]
    for place in (2, count + 2):
        card = token_card(model, lane, tokens, place, circuit, steer_prompt=steer_prompt)
        assert card.surprise == pytest.approx(-mine[place].chances.logprob, abs=1e-3)


def test_a_branch_inside_the_thought_is_steered_like_the_thought(
    model: LoadedModel, circuit: Circuit, lanes: list[Lane]
) -> None:
    begun = tuple(ids(model, "<think> how do"))
    branch = [replace(lane, begun=begun) for lane in lanes]
    first = list(generate(model, branch, circuit, max_new_tokens=2, record=True))[:4]
    chances = [step.chances.logprob for step in first]
    assert chances[2] == pytest.approx(chances[1], abs=1e-4)
    assert chances[3] == pytest.approx(chances[0], abs=1e-4)
    given = begun_steps(model, branch[2], circuit)
    assert texts(given) == ("how do", "")
    assert [step.in_thought for step in given] == [True] * 3
