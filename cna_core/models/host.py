"""The model host: the loaded models of a process, shared by all sessions. It queues requests and frees memory.

A model is used by one request at a time, in the order in which requests came. Hooks exist only while their request
holds the model. The host does not know sessions, pages or what a request does. It imports torch and transformers only
when it loads a model, so that a page can be drawn before.
"""

import contextlib
import gc
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cna_core.models.memory import NoRoomError
from cna_core.progress import Report, Stage, raise_if_stopped, tell

if TYPE_CHECKING:
    from cna_core.models.loaded import LoadedModel

POLL_SECONDS = 0.1
"""How often a waiting request checks whether it should stop."""
USUAL_OPTIONS = {
    "device": "auto",
    "dtype": "auto",
    "quantization": None,
    "trust_remote_code": False,
    "device_map": None,
    "max_memory": None,
}
"""The defaults of `load_model`: a model that is asked for with them and one asked for without are the same."""


@dataclass(eq=False)
class Slot:
    """A model in the host, with the queue of requests for it. The first request in the queue holds the model."""

    key: tuple[Any, ...]
    name: str
    model: "LoadedModel | None" = None
    queue: deque[object] = field(default_factory=deque)  # tickets; the first one holds the model
    last_used: int = 0


class ModelHost:
    """Holds up to `budget` models in memory. Removes the least recently used idle one if space or memory is short.

    Args:
        budget: the number of models to keep in memory. Models in use are never removed, so there can be more for a
            while.
        load: loads a model; `load_model` if None, as everywhere except in tests.
    """

    def __init__(self, budget: int = 1, load: "Callable[..., LoadedModel] | None" = None) -> None:
        self.budget = budget
        self._load = load or _load_model
        self._slots: dict[tuple[Any, ...], Slot] = {}
        self._changed = threading.Condition()
        self._loading = threading.Lock()
        self._clock = 0

    @contextlib.contextmanager
    def acquire(
        self,
        name: str,
        *,
        progress: Report | None = None,
        stop: threading.Event | None = None,
        **load_options: Any,
    ) -> "Iterator[LoadedModel]":
        """Hold a model exclusively: `with host.acquire(name) as model: …`. Loads it first if needed.

        Args:
            name, load_options: as for `load_model`; the same name with other options is a different model.
            progress: reports waiting (with the position in the queue), downloading and loading.
            stop: stops waiting and loading.

        Raises:
            ModelError: the model cannot be loaded.
            StoppedError: stopped while waiting or loading; other requests continue.
        """
        slot, ticket = self._enter(name, load_options)
        try:
            self._wait_for_turn(slot, ticket, progress, stop)
            if slot.model is None:
                self._fill(slot, load_options, progress, stop)
            assert slot.model is not None
            yield slot.model
        finally:
            self._leave(slot, ticket)

    def loaded(self) -> list[str]:
        """Names of the models in memory, the most recently used first."""
        with self._changed:
            present = [slot for slot in self._slots.values() if slot.model is not None]
            return [slot.name for slot in sorted(present, key=lambda slot: -slot.last_used)]

    def in_memory(self, name: str, **load_options: Any) -> "LoadedModel | None":
        """The model if it is in memory, or None. It is not held: read only what does not change, such as its tokenizer.

        Args:
            name, load_options: as for `acquire`.
        """
        with self._changed:
            slot = self._slots.get(_key(name, load_options))
            return None if slot is None else slot.model

    def others_wait(self, name: str, **load_options: Any) -> bool:
        """Whether requests wait for a model that its holder could let go."""
        with self._changed:
            slot = self._slots.get(_key(name, load_options))
            return slot is not None and len(slot.queue) > 1

    def idle_bytes(self) -> int:
        """Memory of the models that no request uses, which is freed when another model needs it."""
        with self._changed:
            return sum(slot.model.memory_bytes for slot in self._slots.values() if slot.model and not slot.queue)

    # --- the queue ----------------------------------------------------------------------------------------------------

    def _enter(self, name: str, load_options: dict[str, Any]) -> tuple[Slot, object]:
        key = _key(name, load_options)
        ticket = object()
        with self._changed:
            slot = self._slots.setdefault(key, Slot(key, name))
            slot.queue.append(ticket)
        return slot, ticket

    def _wait_for_turn(self, slot: Slot, ticket: object, progress: Report | None, stop: threading.Event | None) -> None:
        while True:
            raise_if_stopped(stop)
            with self._changed:
                if slot.queue[0] is not ticket:
                    self._changed.wait(POLL_SECONDS)
                place = slot.queue.index(ticket)
            if place == 0:
                return
            # Outside the lock: the report may draw, and may raise if its session has gone.
            if place == 1 and slot.model is None:  # whoever holds it is loading it, for both
                tell(progress, Stage.LOADING, subject=slot.name)
            else:
                tell(progress, Stage.WAITING_FOR_MODEL, place=place)

    def _leave(self, slot: Slot, ticket: object) -> None:
        with self._changed:
            slot.queue.remove(ticket)
            self._clock += 1
            slot.last_used = self._clock
            if slot.model is None and not slot.queue:
                self._slots.pop(slot.key, None)
            self._changed.notify_all()
        self._make_room(self.budget)

    # --- the memory ---------------------------------------------------------------------------------------------------

    def _fill(
        self, slot: Slot, load_options: dict[str, Any], progress: Report | None, stop: threading.Event | None
    ) -> None:
        """Load the slot's model, one load at a time. Only the holder of the slot calls this."""
        while not self._loading.acquire(timeout=POLL_SECONDS):
            raise_if_stopped(stop)
            tell(progress, Stage.WAITING_FOR_LOADING)
        try:
            self._make_room(self.budget - 1)
            try:
                slot.model = self._load(slot.name, **load_options, progress=progress, stop=stop)
            except NoRoomError:
                if not self._make_room(0):
                    raise
                slot.model = self._load(slot.name, **load_options, progress=progress, stop=stop)
            _settle_memory()
        finally:
            self._loading.release()

    def _make_room(self, keep: int) -> bool:
        """Remove idle models, least recently used first, until at most `keep` are in memory or all are in use.

        Returns:
            Whether any was removed.
        """
        with self._changed:
            present = [slot for slot in self._slots.values() if slot.model is not None]
            idle = sorted((slot for slot in present if not slot.queue), key=lambda slot: slot.last_used)
            too_many = idle[: max(0, len(present) - keep)]
            for slot in too_many:
                self._empty(slot)
        if too_many:
            _give_back_memory()
        return bool(too_many)

    def _empty(self, slot: Slot) -> None:
        slot.model = None
        self._slots.pop(slot.key, None)


def _load_model(name: str, **options: Any) -> "LoadedModel":
    from cna_core.models.load import load_model

    return load_model(name, **options)


def _key(name: str, load_options: dict[str, Any]) -> tuple[Any, ...]:
    """What tells models apart."""
    return (name, *sorted((key, repr(value)) for key, value in load_options.items() if not _usual(key, value)))


def _usual(option: str, value: Any) -> bool:
    """Whether the value is the option's default in `load_model`."""
    return bool(USUAL_OPTIONS[option] == value)


def _settle_memory() -> None:
    """Exclude all present objects, libraries and models, from garbage collection until a model is removed.

    Streamlit runs a full collection after every script and fragment run. With hundreds of thousands of permanent
    objects it takes 0.4 s, during which no other thread runs Python, so a decode shown on a page came to a standstill.
    """
    gc.collect()
    gc.freeze()


def _give_back_memory() -> None:
    """Collect removed models, which are in reference cycles."""
    gc.unfreeze()
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


host = ModelHost()
"""The host that the app uses."""
