"""Claims about callers that share one running decode."""

import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cna_core.circuits.circuit import Circuit
from cna_core.decoding import shared
from cna_core.decoding.lanes import Lane, generate, requests
from cna_core.decoding.prefix_cache import PrefixCaches
from cna_core.decoding.session import Step
from cna_core.decoding.shared import Asked, SharedDecode
from cna_core.errors import CnaError, PromptError, StoppedError
from cna_core.models.host import ModelHost
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress, Stage
from tests.decoding.models import loud_model, spread_circuit, text_of

LANES = [Lane("tell me about cats"), Lane("tell me about cats", 1.0)]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loud_model()


@pytest.fixture
def circuit(model: LoadedModel) -> Circuit:
    return spread_circuit(model, size=40)


@pytest.fixture
def host(model: LoadedModel) -> ModelHost:
    return ModelHost(load=lambda _name, **_options: model)


@pytest.fixture
def decode(host: ModelHost, monkeypatch: pytest.MonkeyPatch) -> SharedDecode:
    monkeypatch.setattr(shared, "end_tokens", lambda _model: frozenset())
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())
    return SharedDecode(host, "tiny", {}, PrefixCaches)


def asked(circuit: Circuit, tokens: int, lanes: list[Lane] = LANES) -> Callable[[LoadedModel], Asked]:
    return lambda model: Asked(requests(model, lanes, circuit, max_new_tokens=tokens, record=True), circuit)


def caller(decode: SharedDecode, circuit: Circuit, tokens: int, **watching: object) -> Generator[Step, None, None]:
    watching = {"stop": threading.Event(), **watching}
    return decode.write(asked(circuit, tokens), **watching)  # type: ignore[arg-type]


def alone(model: LoadedModel, circuit: Circuit, tokens: int) -> list[Step]:
    return list(generate(model, LANES, circuit, max_new_tokens=tokens, record=True))


def told_to_wait() -> tuple[Callable[[Progress], None], threading.Event]:
    waits = threading.Event()
    return lambda progress: waits.set() if progress.stage == Stage.WAITING_FOR_MODEL else None, waits


def test_a_caller_gets_what_generate_writes(decode: SharedDecode, model: LoadedModel, circuit: Circuit) -> None:
    found, expected = list(caller(decode, circuit, 10)), alone(model, circuit, 10)
    assert [(step.lane, step.token_id, step.finish_reason) for step in found] == [
        (step.lane, step.token_id, step.finish_reason) for step in expected
    ]
    assert [step.activity for step in found] == pytest.approx([step.activity for step in expected], abs=1e-5)


def test_a_caller_that_comes_later_is_answered_while_the_first_is_being_written(
    decode: SharedDecode, model: LoadedModel, circuit: Circuit
) -> None:
    other = spread_circuit(model, size=40, seed=5)
    expected = [alone(model, measured, 5) for measured in (circuit, other)]
    long = alone(model, circuit, 200)
    with contextlib.closing(caller(decode, circuit, 200)) as first:
        begun = [next(first)]
        found = [list(caller(decode, measured, 5)) for measured in (circuit, other)]
        assert decode.rows >= 2  # the first is still being written
        begun += list(first)
    for mine, lone in zip([*found, begun], [*expected, long], strict=True):
        assert [text_of(mine, lane) for lane in (0, 1)] == [text_of(lone, lane) for lane in (0, 1)]


def test_who_stops_gets_no_further_step_and_the_others_go_on(
    decode: SharedDecode, model: LoadedModel, circuit: Circuit
) -> None:
    stop = threading.Event()
    stopping, staying = caller(decode, circuit, 200, stop=stop), caller(decode, circuit, 60)
    begun = [next(staying), next(stopping)]
    stop.set()
    with pytest.raises(StoppedError):
        next(stopping)
    begun = [begun[0], *staying]
    assert text_of(begun, 1) == text_of(alone(model, circuit, 60), 1)


def test_who_goes_away_leaves_the_model_free(decode: SharedDecode, host: ModelHost, circuit: Circuit) -> None:
    steps = caller(decode, circuit, 200)
    next(steps)
    steps.close()
    with host.acquire("tiny"):
        assert decode.rows == 0


def test_who_waits_for_the_model_is_told_and_can_stop_alone(
    decode: SharedDecode, host: ModelHost, circuit: Circuit
) -> None:
    stop, (progress, waits), (other, other_waits) = threading.Event(), told_to_wait(), told_to_wait()
    with ThreadPoolExecutor(2) as pool:
        with host.acquire("tiny"):
            stopping = pool.submit(list, caller(decode, circuit, 5, stop=stop, progress=progress))
            staying = pool.submit(list, caller(decode, circuit, 5, progress=other))
            assert waits.wait(60) and other_waits.wait(60)
            stop.set()
            with pytest.raises(StoppedError):
                stopping.result(60)
        assert len(staying.result(60)) == 10


def test_other_work_gets_the_model_when_the_answers_that_have_begun_are_finished(
    decode: SharedDecode, host: ModelHost, circuit: Circuit
) -> None:
    order: list[str] = []
    work_waits, (progress, waits) = threading.Event(), told_to_wait()

    def work() -> None:
        with host.acquire("tiny", progress=lambda _progress: work_waits.set()):
            order.append("work")

    def later() -> None:
        assert list(caller(decode, circuit, 3, progress=progress))
        order.append("later")

    with ThreadPoolExecutor(2) as pool:
        first = caller(decode, circuit, 200)
        next(first)
        working = pool.submit(work)
        assert work_waits.wait(60)
        asking = pool.submit(later)
        assert waits.wait(60)
        list(first)
        working.result(60)
        asking.result(60)
    assert order == ["work", "later"]


def test_what_goes_wrong_for_one_caller_is_told_to_that_one_alone(
    decode: SharedDecode, model: LoadedModel, circuit: Circuit
) -> None:
    with contextlib.closing(caller(decode, circuit, 200)) as first:
        begun = [next(first)]
        with pytest.raises(PromptError):
            next(decode.write(asked(circuit, 5, [Lane(" ")]), stop=threading.Event()))
        begun += list(first)
    assert text_of(begun) == text_of(alone(model, circuit, 200))


def test_a_model_that_cannot_be_loaded_is_told_and_the_next_caller_tries_again(
    circuit: Circuit, model: LoadedModel
) -> None:
    def fails(_name: str, **_options: object) -> LoadedModel:
        raise CnaError("no such model")

    host = ModelHost(load=fails)
    decode = SharedDecode(host, "tiny", {}, PrefixCaches)
    with pytest.raises(CnaError, match="no such model"):
        next(caller(decode, circuit, 5))
    host._load = lambda _name, **_options: model
    assert list(caller(decode, circuit, 2))
