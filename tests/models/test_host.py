"""Threads meet at events and queues here, never at sleeps."""

import gc
import inspect
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cna_core.errors import ModelError, StoppedError
from cna_core.models.host import USUAL_OPTIONS, ModelHost
from cna_core.models.load import load_model
from cna_core.models.memory import NoRoomError
from cna_core.progress import Progress, Report, Stage

PATIENCE = 20
"""Seconds until a test that waits for a thread is given up."""


class FakeModel:
    def __init__(self, name: str) -> None:
        self.name = name
        self.memory_bytes = 100
        self.itself = self  # as real models do


class Loader:
    """Stands in for `load_model`; remembers what it loaded."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.fail = False

    def __call__(self, name: str, *, progress: Any, stop: Any, **options: Any) -> Any:
        self.loads.append(name)
        self.options.append(options)
        if self.fail:
            raise ModelError("It cannot be loaded: choose another.")
        return FakeModel(name)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def host(loader: Loader) -> ModelHost:
    return ModelHost(load=loader)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def places(seen: "queue.Queue[int]") -> Report:
    """A report that notes each place in the queue that it is told."""

    def note(progress: Progress) -> None:
        if progress.stage is Stage.WAITING_FOR_MODEL:
            assert progress.place is not None
            seen.put(progress.place)

    return note


def until_waiting(seen: "queue.Queue[int]", place: int) -> None:
    while seen.get(timeout=PATIENCE) != place:
        pass


def test_a_model_is_loaded_once_and_used_again(host: ModelHost, loader: Loader) -> None:
    with host.acquire("a") as first:
        pass
    with host.acquire("a") as again:
        assert again is first
    assert loader.loads == ["a"]


def test_the_same_name_with_other_options_is_another_model(host: ModelHost, loader: Loader) -> None:
    with host.acquire("a", dtype="float32"), host.acquire("a", dtype="bfloat16"):
        pass
    assert loader.options == [{"dtype": "float32"}, {"dtype": "bfloat16"}]


def test_a_default_that_is_spelt_out_is_the_same_model(host: ModelHost, loader: Loader) -> None:
    for options in ({}, {"device": "auto"}, {"dtype": "auto", "quantization": None}):
        with host.acquire("a", **options):
            pass
    assert loader.loads == ["a"]


def test_many_that_ask_at_once_get_one_load_and_one_turn_each(
    host: ModelHost, loader: Loader, threads: ThreadPoolExecutor
) -> None:
    inside: list[int] = []
    most: list[int] = []
    start = threading.Barrier(12)

    def use(number: int) -> str:
        start.wait(PATIENCE)
        with host.acquire("a") as model:
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)
            return model.name

    assert list(threads.map(use, range(12))) == ["a"] * 12
    assert loader.loads == ["a"]
    assert max(most) == 1


def test_first_come_first_served_and_the_place_is_told(host: ModelHost, threads: ThreadPoolExecutor) -> None:
    order: list[int] = []
    seen: list[queue.Queue[int]] = [queue.Queue() for _ in range(4)]

    def use(number: int) -> None:
        with host.acquire("a", progress=places(seen[number])):
            order.append(number)

    with host.acquire("a"):
        jobs = []
        for number in range(4):
            jobs.append(threads.submit(use, number))
            until_waiting(seen[number], number + 1)  # so the next one comes behind it
    for job in jobs:
        job.result(PATIENCE)
    assert order == [0, 1, 2, 3]


def test_a_waiting_request_can_be_stopped_and_those_behind_it_move_up(
    host: ModelHost, threads: ThreadPoolExecutor
) -> None:
    stop = threading.Event()
    seen: list[queue.Queue[int]] = [queue.Queue(), queue.Queue()]

    def use(number: int, stop: threading.Event | None) -> str:
        with host.acquire("a", stop=stop, progress=places(seen[number])) as model:
            return model.name

    with host.acquire("a"):
        first = threads.submit(use, 0, stop)
        until_waiting(seen[0], 1)
        second = threads.submit(use, 1, None)
        until_waiting(seen[1], 2)
        stop.set()
        with pytest.raises(StoppedError):
            first.result(PATIENCE)
        until_waiting(seen[1], 1)
    assert second.result(PATIENCE) == "a"


def test_a_session_that_dies_while_waiting_frees_its_place(host: ModelHost) -> None:
    class SessionGone(BaseException):
        """As Streamlit ends a script."""

    def die(_: Progress) -> None:
        raise SessionGone

    with host.acquire("a"):
        with pytest.raises(SessionGone), host.acquire("a", progress=die):
            pass
        assert host.idle_bytes() == 0
    assert host.idle_bytes() == 100


def test_an_exception_inside_gives_the_model_back(host: ModelHost) -> None:
    with pytest.raises(ZeroDivisionError), host.acquire("a"):
        raise ZeroDivisionError
    with host.acquire("a") as model:
        assert model.name == "a"


def test_a_failed_load_is_raised_and_the_next_request_tries_again(host: ModelHost, loader: Loader) -> None:
    loader.fail = True
    with pytest.raises(ModelError), host.acquire("a"):
        pass
    assert host.loaded() == []
    loader.fail = False
    with host.acquire("a") as model:
        assert model.name == "a"
    assert loader.loads == ["a", "a"]


def test_the_least_recently_used_idle_model_goes(loader: Loader) -> None:
    host = ModelHost(budget=2, load=loader)
    for name in ("a", "b", "a", "c"):
        with host.acquire(name):
            pass
    assert host.loaded() == ["c", "a"]


def test_idle_models_go_when_memory_is_short(loader: Loader) -> None:
    def load(name: str, **options: Any) -> Any:
        if name == "large" and len(host.loaded()) > 0:
            raise NoRoomError("It does not fit: unload another model.")
        return loader(name, **options)

    host = ModelHost(budget=5, load=load)
    for name in ("a", "b", "large"):
        with host.acquire(name):
            pass
    assert host.loaded() == ["large"]
    with host.acquire("a"), pytest.raises(NoRoomError), host.acquire("large", dtype="float32"):
        pass  # nothing idle can go but the other large one, and it still does not fit beside "a"


def test_the_old_model_is_gone_before_the_new_one_is_loaded(loader: Loader) -> None:
    alive: list[Callable[[], Any]] = []
    left: list[int] = []

    def load(name: str, **options: Any) -> Any:
        left.append(sum(reference() is not None for reference in alive))
        model = loader(name, **options)
        alive.append(weakref.ref(model))
        return model

    host = ModelHost(load=load)
    for name in ("a", "b", "c"):
        with host.acquire(name):
            pass
    assert left == [0, 0, 0]


def test_a_model_in_use_never_goes_but_does_when_it_is_given_back(loader: Loader) -> None:
    host = ModelHost(budget=1, load=loader)
    with host.acquire("a") as first:
        with host.acquire("b"):
            assert set(host.loaded()) == {"a", "b"}
        assert host.loaded() == ["a"]
        with host.acquire("b"):
            pass
        assert first.name == "a"
    assert host.loaded() == ["a"]


def test_a_model_that_has_gone_is_freed_and_loaded_again_for_whoever_comes_later(loader: Loader) -> None:
    host = ModelHost(budget=0, load=loader)
    with host.acquire("a") as model:
        reference = weakref.ref(model)
        assert host.loaded() == ["a"]
    del model
    gc.collect()
    assert host.loaded() == [] and reference() is None
    with host.acquire("a") as model:
        assert model.name == "a"
    assert loader.loads == ["a", "a"]


def test_what_is_loaded_is_left_out_of_collections_until_a_model_goes(loader: Loader) -> None:
    gc.unfreeze()
    host = ModelHost(budget=0, load=loader)
    with host.acquire("a"):
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_two_models_are_used_side_by_side(host: ModelHost, threads: ThreadPoolExecutor) -> None:
    both_inside = threading.Barrier(2)

    def use(name: str) -> str:
        with host.acquire(name) as model:
            both_inside.wait(PATIENCE)
            return model.name

    assert [job.result(PATIENCE) for job in [threads.submit(use, name) for name in "ab"]] == ["a", "b"]


def test_loads_do_not_overlap(threads: ThreadPoolExecutor) -> None:
    loading: list[str] = []
    most: list[int] = []

    def load(name: str, **_: Any) -> Any:
        loading.append(name)
        most.append(len(loading))
        loading.remove(name)
        return FakeModel(name)

    host = ModelHost(load=load)

    def use(name: str) -> str:
        with host.acquire(name) as model:
            return model.name

    assert list(threads.map(use, "abcabcabc")) == list("abcabcabc")
    assert max(most) == 1


def test_waiting_for_another_load_can_be_stopped(threads: ThreadPoolExecutor) -> None:
    begun, go_on, stop = threading.Event(), threading.Event(), threading.Event()

    def load(name: str, **_: Any) -> Any:
        begun.set()
        go_on.wait(PATIENCE)
        return FakeModel(name)

    host = ModelHost(load=load)

    def use(name: str, stop: threading.Event | None) -> str:
        with host.acquire(name, stop=stop, progress=lambda *_: stop and stop.set()) as model:
            return model.name

    first = threads.submit(use, "a", None)
    assert begun.wait(PATIENCE)
    with pytest.raises(StoppedError):
        threads.submit(use, "b", stop).result(PATIENCE)
    go_on.set()
    assert first.result(PATIENCE) == "a"


def test_the_memory_of_models_that_nobody_uses_is_said(host: ModelHost) -> None:
    host.budget = 2
    assert host.idle_bytes() == 0
    with host.acquire("a"):
        assert host.idle_bytes() == 0
    with host.acquire("b"):
        assert host.idle_bytes() == 100
    assert host.idle_bytes() == 200


def test_usual_options_are_the_defaults_of_load_model() -> None:
    parameters = inspect.signature(load_model).parameters.values()
    assert {each.name: each.default for each in parameters if each.default not in (each.empty, None)} == {
        name: value for name, value in USUAL_OPTIONS.items() if value is not None
    }
    assert {each.name for each in parameters} == {*USUAL_OPTIONS, "name", "progress", "stop"}


def test_who_waits_for_a_load_that_another_has_begun_is_told_of_the_load(threads: ThreadPoolExecutor) -> None:
    loading, told = threading.Event(), queue.Queue[Stage]()

    def load(name: str, **_: Any) -> Any:
        assert loading.wait(PATIENCE)
        return FakeModel(name)

    host = ModelHost(load=load)

    def use(report: Report | None) -> None:
        with host.acquire("a", progress=report):
            pass

    first = threads.submit(use, None)
    while not host._slots:
        pass
    second = threads.submit(use, lambda progress: told.put(progress.stage))
    assert told.get(timeout=PATIENCE) is Stage.LOADING
    loading.set()
    first.result(PATIENCE), second.result(PATIENCE)
