"""A visitor of the web app without a browser: speaks Streamlit's protocol, so that many fit beside the server.

It does what the browser's part of Streamlit does: it keeps the elements of the page, sends the states of widgets, and
reruns the fragments that ask for it. It draws nothing. Not part of the app.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect

LARGEST_MESSAGE = 256 << 20


class AppClient:
    """One visitor.

    Args:
        address: of the server, such as http://127.0.0.1:8501.
        query: the query string of the address, without its question mark.
    """

    def __init__(self, address: str, query: str = "") -> None:
        self._address, self._query = address.replace("http", "ws", 1) + "/_stcore/stream", query
        self._socket: ClientConnection | None = None
        self._page = ""
        self._pages: dict[str, str] = {}
        self._elements: dict[tuple[int, ...], tuple[int, str, Any]] = {}  # run's number, fragment, element; by place
        self._states: dict[str, WidgetState] = {}
        self._run, self._whole_runs, self._fragments_of_run = 0, 0, frozenset[str]()
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.exceptions: list[str] = []
        """What the page showed of exceptions, and of errors in the protocol."""
        self.is_running = False
        """Whether the page's whole script is running, so that what it shows is not all new."""

    async def __aenter__(self) -> Self:
        self._socket = await connect(self._address, subprotocols=["streamlit"], max_size=LARGEST_MESSAGE)  # type: ignore[list-item]
        self._reader = asyncio.create_task(self._read())
        await self.rerun()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._stop_timers()
        if self._reader is not None:
            self._reader.cancel()
        if self._socket is not None:
            await self._socket.close()

    # --- what a visitor sees ---

    def elements(self, kind: str) -> Iterator[Any]:
        """The page's elements of a kind, such as "button", in the order of the page."""
        for _place, (_run, _fragment, element) in sorted(self._elements.items()):
            if element.WhichOneof("type") == kind:
                yield getattr(element, kind)

    def button(self, part: str) -> Any | None:
        """The first enabled button whose label, or whose widget key, holds this text."""
        found = (b for b in self.elements("button") if part in b.label or part in b.id)
        return next((button for button in found if not button.disabled), None)

    @property
    def markup(self) -> str:
        """All HTML on the page."""
        return "\n".join(element.body for element in self.elements("html"))

    @property
    def texts(self) -> str:
        """All Markdown and HTML on the page, and the labels of its buttons."""
        parts = [element.body for element in self.elements("markdown")]
        parts += [element.body for element in self.elements("alert")]
        parts += [element.label for element in self.elements("button")]
        return "\n".join([*parts, self.markup])

    # --- what a visitor does ---

    async def press(self, button: Any) -> None:
        """Press a button; does not wait for what follows."""
        await self._send(WidgetState(id=button.id, trigger_value=True))

    async def say(self, text: str) -> None:
        """Send a message through the page's chat input."""
        state = WidgetState(id=next(self.elements("chat_input")).id)
        state.chat_input_value.data = text
        await self._send(state)

    async def slide(self, label: str, value: float) -> None:
        """Move the slider with this label."""
        slider = next(slider for slider in self.elements("slider") if slider.label == label)
        state = WidgetState(id=slider.id)
        state.double_array_value.data.append(value)
        self._states[slider.id] = state
        await self._send()

    async def fill_number(self, label: str, value: int) -> None:
        """Change the number field with this label."""
        field = next(field for field in self.elements("number_input") if field.label == label)
        self._states[field.id] = WidgetState(id=field.id, int_value=value)
        await self._send()

    async def open(self, page: str) -> float:
        """Open the page whose title is this; returns the seconds until its script has ended."""
        started = time.perf_counter()
        self._page = self._pages[page]
        await self.rerun()
        return time.perf_counter() - started

    async def rerun(self) -> None:
        """Run the page's script, and wait for its end."""
        ended = self._whole_runs
        await self._send()
        await self.until(lambda: self._whole_runs > ended)

    async def until(self, is_so: Callable[[], bool], seconds: float = 900) -> None:
        """Wait for something on the page.

        Raises:
            TimeoutError: it did not come.
        """
        async with asyncio.timeout(seconds):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    # --- the protocol ---

    async def _send(self, trigger: WidgetState | None = None, fragment: str = "", by_timer: bool = False) -> None:
        message = BackMsg()
        asked = message.rerun_script
        asked.query_string, asked.page_script_hash = self._query, self._page
        asked.fragment_id, asked.is_auto_rerun = fragment, by_timer
        asked.widget_states.widgets.extend(self._states.values())
        if trigger is not None:
            asked.widget_states.widgets.append(trigger)
        assert self._socket is not None
        await self._socket.send(message.SerializeToString())

    async def _read(self) -> None:
        assert self._socket is not None
        async for data in self._socket:
            message = ForwardMsg()
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            with contextlib.suppress(KeyError):
                self._take(message)
            self._changed.set()

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._run += 1
            self._fragments_of_run = frozenset(message.metadata.run.fragment_ids)
            if not self._fragments_of_run:
                self._page, self.is_running = message.new_session.page_script_hash, True
                self._stop_timers()
        elif kind == "navigation":
            self._pages = {page.page_name: page.page_script_hash for page in message.navigation.app_pages}
            self._page = message.navigation.page_script_hash or self._page
        elif kind == "page_info_changed":
            self._query = message.page_info_changed.query_string
        elif kind == "delta":
            self._place(tuple(message.metadata.delta_path), message.delta)
        elif kind == "auto_rerun":
            self._start_timer(message.auto_rerun.fragment_id, message.auto_rerun.interval)
        elif kind == "stop_auto_rerun":
            for fragment in message.stop_auto_rerun.fragment_ids:
                self._stop_timer(fragment)
        elif kind == "script_finished":
            self._end(message.script_finished)
        elif kind == "session_event" and message.session_event.HasField("script_compilation_exception"):
            self.exceptions.append(message.session_event.script_compilation_exception.message)

    def _place(self, place: tuple[int, ...], delta: Any) -> None:
        if delta.WhichOneof("type") != "new_element":
            return
        element = delta.new_element
        if element.WhichOneof("type") == "exception":
            self.exceptions.append(element.exception.message)
        self._elements[place] = (self._run, delta.fragment_id, element)

    def _end(self, status: int) -> None:
        if status == ForwardMsg.FINISHED_SUCCESSFULLY:
            self._whole_runs, self.is_running = self._whole_runs + 1, False
            self._keep(lambda run, _fragment: run == self._run)
        elif status == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            self._keep(lambda run, fragment: run == self._run or fragment not in self._fragments_of_run)

    def _keep(self, is_kept: Callable[[int, str], bool]) -> None:
        """Drop elements that the run did not draw again."""
        self._elements = {place: held for place, held in self._elements.items() if is_kept(held[0], held[1])}

    # --- fragments that rerun by themselves ---

    def _start_timer(self, fragment: str, seconds: float) -> None:
        if fragment not in self._timers:
            self._timers[fragment] = asyncio.create_task(self._again_and_again(fragment, seconds))

    async def _again_and_again(self, fragment: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._send(fragment=fragment, by_timer=True)

    def _stop_timer(self, fragment: str) -> None:
        if fragment in self._timers:
            self._timers.pop(fragment).cancel()

    def _stop_timers(self) -> None:
        for fragment in list(self._timers):
            self._stop_timer(fragment)
