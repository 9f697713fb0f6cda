"""Claims about a model that several sessions use at once: nobody's steering reaches anybody else's baseline."""

import threading
from collections.abc import Iterator

import pytest
import torch

from cna_core.decoding.lanes import Lane, Step, first_token_logits, generate
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.models.host import ModelHost
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from tests.decoding.models import loud_model, spread_circuit
from tests.interventions.test_plan import hook_count

SESSIONS = 8
QUESTIONS = ("tell me about cats", "how do i bake the bread", "why", "what is it to you")


@pytest.fixture(scope="module", params=["tiny", pytest.param("small bfloat16", marks=pytest.mark.small_model)])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return loud_model() if request.param == "tiny" else load_model("smollm2-135m-instruct", "cpu", "bfloat16")


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    yield


def answers(model: LoadedModel, session: int, prefixes: PrefixCaches | None) -> list[Step]:
    """What one session asks: a baseline, and beside it its own steering of its own circuit."""
    question = QUESTIONS[session % len(QUESTIONS)]
    circuit = spread_circuit(model, size=40, seed=session)
    lanes = [Lane(question), Lane(question, strength=0.5 + session / 4)]
    return list(generate(model, lanes, circuit, max_new_tokens=12, seed=session, measure=True, prefixes=prefixes))


@pytest.mark.parametrize("with_prefixes", [False, True])
def test_eight_sessions_at_once_get_bit_for_bit_what_each_gets_alone(
    model: LoadedModel, endless: None, with_prefixes: bool
) -> None:
    alone = [answers(model, session, PrefixCaches(model) if with_prefixes else None) for session in range(SESSIONS)]
    host = ModelHost(load=lambda _name, **_options: model)
    shared = PrefixCaches(model) if with_prefixes else None
    together: dict[int, list[Step]] = {}
    ready = threading.Barrier(SESSIONS)

    def ask(session: int) -> None:
        ready.wait()
        with host.acquire("model") as mine:
            together[session] = answers(mine, session, shared)

    threads = [threading.Thread(target=ask, args=(session,)) for session in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[session] for session in range(SESSIONS)] == alone  # tokens, texts, and floats to the last bit
    assert hook_count(model) == 0


def test_a_baseline_is_the_same_beside_any_steering(model: LoadedModel, endless: None) -> None:
    circuit = spread_circuit(model, size=40)
    alone = list(generate(model, [Lane(QUESTIONS[0])], circuit, max_new_tokens=12))
    for beside in ([0.0], [1.0], [2.0, -1.0], [0.5, 1.0, 1.5, 2.0]):
        lanes = [Lane(QUESTIONS[0]), *(Lane(QUESTIONS[0], strength=strength) for strength in beside)]
        steps = generate(model, lanes, circuit, max_new_tokens=12, measure=True)
        assert [step.token_id for step in steps if step.lane == 0] == [step.token_id for step in alone]


def test_steering_between_two_readings_leaves_the_logits_as_they_were(model: LoadedModel) -> None:
    circuit = spread_circuit(model, size=40)
    before = first_token_logits(model, [Lane(QUESTIONS[0])], circuit)
    first_token_logits(model, [Lane(QUESTIONS[0], strength=strength) for strength in (1.0, 2.0, -1.0)], circuit)
    assert torch.equal(first_token_logits(model, [Lane(QUESTIONS[0])], circuit), before)
