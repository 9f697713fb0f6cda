"""Claims about answers that enter and leave a running decode."""

from collections.abc import Sequence

import pytest
import torch

from cna_core.decoding.lanes import Lane, as_prompt, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.reading import prompt_chances
from cna_core.decoding.row_batch import RowBatch
from cna_core.decoding.sampling import Sampler, Sampling
from cna_core.decoding.session import DecodeSession, Request, Step
from cna_core.interventions.plan import steered
from cna_core.models.loaded import LoadedModel
from tests.decoding.models import loud_model, sliding_window_model, spread_circuit, text_of, tokens_by_lane

QUESTIONS = ("tell me about cats", "how do i bake the bread", "why", "how do i break the lock what is it why no")
STRENGTHS = (0.0, 1.0, 2.0, -1.0, 0.5)
NO_ENDS: frozenset[int] = frozenset()


@pytest.fixture(scope="module", params=[loud_model, sliding_window_model])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.param()


@pytest.fixture
def small(request: pytest.FixtureRequest) -> LoadedModel:
    return request.getfixturevalue("small_model")


def request_of(model: LoadedModel, lane: Lane, limit: int = 12, **options: object) -> Request:
    sampling = options.pop("sampling", Sampling())
    prompt = as_prompt(model, lane.messages, lane.change(model, spread_circuit(model, size=40)))
    return Request(prompt, limit, Sampler(sampling), **options)  # type: ignore[arg-type]


def arriving(session: DecodeSession, requests: Sequence[Request], every: int) -> list[Step]:
    """All steps where a request arrives every so many steps."""
    steps: list[Step] = []
    waiting = list(requests)
    number = 0
    while waiting or session.answers:
        if waiting and number % every == 0:
            session.add(waiting.pop(0))
        steps += session.step()
        number += 1
    return steps


def twelve_lanes() -> list[Lane]:
    return [Lane(QUESTIONS[n % len(QUESTIONS)], strength=STRENGTHS[n % len(STRENGTHS)]) for n in range(12)]


def answers_equal_those_alone(model: LoadedModel, limit: int) -> None:
    lanes, circuit = twelve_lanes(), spread_circuit(model, size=40)
    session = DecodeSession(model, NO_ENDS, prefixes=PrefixCaches(model))
    together = arriving(session, [request_of(model, lane, limit) for lane in lanes], every=2)
    assert session.answers == 0 and session.rows == 0
    for lane, tokens in zip(lanes, tokens_by_lane(together, 12), strict=True):
        alone = list(generate(model, [lane], circuit, max_new_tokens=limit))
        assert tokens == tokens_by_lane(alone, 1)[0]


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: NO_ENDS)


def test_twelve_lanes_that_arrive_at_different_steps_write_what_each_writes_alone(
    model: LoadedModel, endless: None
) -> None:
    answers_equal_those_alone(model, limit=14)


@pytest.mark.small_model
def test_twelve_lanes_of_a_real_model_write_what_each_writes_alone(small: LoadedModel, endless: None) -> None:
    answers_equal_those_alone(small, limit=8)


def test_answers_of_different_length_leave_the_others_as_they_are(model: LoadedModel, endless: None) -> None:
    lanes, limits = twelve_lanes(), [3, 20, 7, 1, 12, 9, 4, 15, 2, 6, 11, 5]
    session = DecodeSession(model, NO_ENDS)
    requests = [request_of(model, lane, limit) for lane, limit in zip(lanes, limits, strict=True)]
    together = tokens_by_lane(arriving(session, requests, every=1), 12)
    for lane, limit, tokens in zip(lanes, limits, together, strict=True):
        alone = list(generate(model, [lane], spread_circuit(model, size=40), max_new_tokens=limit))
        assert tokens == tokens_by_lane(alone, 1)[0]


def test_a_late_arrival_writes_its_first_token_in_the_next_step(model: LoadedModel) -> None:
    session = DecodeSession(model, NO_ENDS)
    session.add(request_of(model, Lane(QUESTIONS[0]), limit=30))
    for _ in range(5):
        session.step()
    late = session.add(request_of(model, Lane(QUESTIONS[1], strength=1.0)))
    assert [step.lane for step in session.step()] == [0, late]


def test_a_removed_answer_is_gone_with_the_next_token(model: LoadedModel) -> None:
    session = DecodeSession(model, NO_ENDS)
    tickets = [session.add(request_of(model, Lane(question), limit=30)) for question in QUESTIONS]
    session.step()
    assert session.rows == 4
    session.remove(tickets[1])
    assert [step.lane for step in session.step()] == [0, 2, 3]
    assert session.rows == 3
    for ticket in tickets:
        session.remove(ticket)
    assert session.answers == session.rows == 0 and session.batch.cache is None


def test_a_sampled_answer_is_the_same_whoever_runs_beside_it(model: LoadedModel, endless: None) -> None:
    lanes = twelve_lanes()[:6]
    samplings = [Sampling(temperature=1.0, top_p=0.9, seed=seed) for seed in range(6)]
    session = DecodeSession(model, NO_ENDS)
    requests = [request_of(model, lane, sampling=s) for lane, s in zip(lanes, samplings, strict=True)]
    together = tokens_by_lane(arriving(session, requests, every=2), 6)
    for lane, sampling, tokens in zip(lanes, samplings, together, strict=True):
        alone = generate(model, [lane], spread_circuit(model, size=40), max_new_tokens=12, sampling=sampling)
        assert tokens == tokens_by_lane(list(alone), 1)[0]


def test_a_stop_text_ends_the_answer_before_it(model: LoadedModel) -> None:
    session = DecodeSession(model, NO_ENDS)
    session.add(request_of(model, Lane(QUESTIONS[0])))
    whole = text_of(arriving(session, [], every=1))
    stop = whole[len(whole) // 2 :][:6]
    session.add(request_of(model, Lane(QUESTIONS[0]), stops=(stop,)))
    steps = arriving(session, [], every=1)
    assert text_of(steps, lane=1) == whole[: whole.index(stop)]
    assert steps[-1].finish_reason == "stop" and session.answers == 0


def test_a_model_that_cannot_join_answers_one_batch_after_the_other(model: LoadedModel) -> None:
    session = DecodeSession(model, NO_ENDS, joins=False)
    session.add(request_of(model, Lane(QUESTIONS[0]), limit=3))
    session.step()
    session.add(request_of(model, Lane(QUESTIONS[1]), limit=2))
    assert [[step.lane for step in session.step()] for _ in range(4)] == [[0], [0], [1], [1]]


def test_prompt_chances_are_the_models_log_probabilities(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cna_core.decoding.row_batch.LOGIT_TOKENS", 12)  # read in parts
    circuit = spread_circuit(model, size=40)
    lanes = [Lane(QUESTIONS[3], strength=1.0), Lane(QUESTIONS[2]), Lane(QUESTIONS[1], strength=2.0)]
    prompts = [as_prompt(model, lane.messages, lane.change(model, circuit)) for lane in lanes]
    for lane, prompt, chances in zip(lanes, prompts, prompt_chances(RowBatch(model), prompts, 3), strict=True):
        with torch.inference_mode(), steered(model, circuit, [1 - lane.strength]):
            logprobs = model.network(input_ids=torch.tensor([prompt.tokens])).logits[0].log_softmax(-1)
        expected = logprobs[:-1].gather(-1, torch.tensor(prompt.tokens[1:])[:, None])[:, 0].tolist()
        assert chances[0] is None
        assert [found.logprob for found in chances[1:] if found] == pytest.approx(expected, abs=1e-4)
        assert [found.likeliest[0][0] for found in chances[1:] if found] == logprobs[:-1].argmax(-1).tolist()
