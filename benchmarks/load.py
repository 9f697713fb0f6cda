"""How the app holds up when many people use it at once, against the real server.

    python benchmarks/load.py [MODEL] [--sessions 20] [--minutes 2] [--tokens 40]

First one visitor finds the gate and sends a message alone. Five visitors then send the same message one after the
other, and all at once. Last, all sessions work at once for some minutes: each finds the gate, opens Chat, sends the
message, moves the slider, looks at Neurons and Gate, and begins again, while one more visitor turns pages that need no
model. The visitors speak Streamlit's protocol and draw nothing (app_client.py), so a page's time is that of the server.

Reported, with the aims: exceptions and tracebacks (0); baseline answers that differ by a letter from the one alone (0);
the longest time without a word after a message; the last of five answers at once against one after the other (at most
1.5); the time of a page that needs no model (0.5 s in the 95th percentile); the memory at the end against that after
the first minute (at most 1.1). Prints text; the last line is JSON.
"""

import argparse
import asyncio
import html
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from benchmarks.app_client import AppClient
from benchmarks.machine import processor
from cna_core.models.catalog import SMALL_MODEL
from tests.browser.server import running_app

MESSAGE = "Write three sentences about the sea."
SLIDER, LENGTH = "Strength of steering", "Maximum answer length, tokens"
TOGETHER = 5
FIRST_MINUTE = 60.0
_ANSWER = re.compile(r'data-testid="answer"[^>]*>(.*?)</div>', re.DOTALL)


@dataclass
class Seen:
    """What the visitors saw."""

    answers: list[str] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)
    silent_seconds: list[float] = field(default_factory=list)
    find_seconds: list[float] = field(default_factory=list)
    slide_seconds: list[float] = field(default_factory=list)
    look_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Many sessions at once.")
    parser.add_argument("model", nargs="?", default=SMALL_MODEL)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with running_app(log) as address:
            query = f"model={options.model}"
            report = asyncio.run(measured(address, query, options.sessions, options.minutes, options.tokens))
            report["server lives"] = server_of(address).is_running()
            written = log.read_text(errors="replace")
        report["tracebacks in the log"] = written.count("Traceback")
        if report["tracebacks in the log"]:
            print(written[written.index("Traceback") :][-3000:])
    for name, value in report.items():
        print(f"{name:42} {value}")
    about = {"benchmark": "load", "model": options.model, "sessions": options.sessions, "tokens": options.tokens}
    print(json.dumps({**about, "cpu": processor(), **report}))


async def measured(address: str, query: str, sessions: int, minutes: float, tokens: int) -> dict[str, object]:
    """What is reported, by name."""
    alone, few, many = Seen(), Seen(), Seen()
    async with AppClient(address, query) as visitor:
        await find(visitor, alone)
        await to_chat(visitor, tokens)
        await ask(visitor, alone)
    say(f"alone: gate after {alone.find_seconds[0]:.1f} s, answers after {alone.answer_seconds[0]:.1f} s")
    ratio = await five_at_once(address, query, tokens, few)
    say(f"{TOGETHER} at once against one after the other: {ratio:.2f}")
    memory = await everybody(address, query, sessions, minutes, tokens, many)
    baselines = few.answers + many.answers
    return {
        "last of five at once : one after the other": round(ratio, 2),
        "gate found: median, longest s": of(many.find_seconds, np.median, np.max),
        "answers": len(many.answers),
        "answers: median, longest s": of(many.answer_seconds, np.median, np.max),
        "longest without a word s": of(many.silent_seconds, np.max),
        "slider moved: median, longest s": of(many.slide_seconds, np.median, np.max),
        "page without model: median, 95 % s": of(many.look_seconds, np.median, lambda all_: np.percentile(all_, 95)),
        "baselines that differ": sum(answer != alone.answers[0] for answer in baselines),
        "alone": alone.answers[0][:80],
        "not so": sorted({answer[:80] for answer in baselines if answer != alone.answers[0]})[:3],
        "problems shown": len(alone.problems + few.problems + many.problems),
        "problems": sorted(set(few.problems + many.problems))[:5],
        "memory at the end : after a minute": memory,
    }


async def five_at_once(address: str, query: str, tokens: int, seen: Seen) -> float:
    """The seconds until the last of five answers, at once against one after the other."""
    visitors = [AppClient(address, query) for _ in range(TOGETHER)]
    for visitor in visitors:
        await visitor.__aenter__()
        await find(visitor, seen)
        await to_chat(visitor, tokens)
    started = time.perf_counter()
    for visitor in visitors:
        await ask(visitor, seen)
    one_by_one = time.perf_counter() - started
    started = time.perf_counter()
    await asyncio.gather(*(ask(visitor, seen) for visitor in visitors))
    at_once = time.perf_counter() - started
    for visitor in visitors:
        seen.problems += visitor.exceptions
        await visitor.__aexit__(None)
    return at_once / one_by_one


async def everybody(address: str, query: str, sessions: int, minutes: float, tokens: int, seen: Seen) -> float:
    """All sessions at once; returns the server's memory at the end against that after the first minute."""
    server, ends = server_of(address), time.monotonic() + FIRST_MINUTE + 60 * max(0.0, minutes - 1)
    after_a_minute = asyncio.create_task(memory_after(server, min(FIRST_MINUTE, 60 * minutes / 2)))
    await asyncio.gather(
        *(one_session(address, query, tokens, ends, seen) for _ in range(sessions)), one_reader(address, ends, seen)
    )
    return round(server.memory_info().rss / await after_a_minute, 3)


async def one_session(address: str, query: str, tokens: int, ends: float, seen: Seen) -> None:
    """Find, talk, slide, look at pages, and again, until the time is over; what has begun is finished."""
    async with AppClient(address, query) as visitor:
        try:
            await find(visitor, seen)
            await to_chat(visitor, tokens)
            while time.monotonic() < ends:
                await ask(visitor, seen)
                for strength in (0.5, 1.5, 1.0):
                    started = time.perf_counter()
                    await visitor.slide(SLIDER, strength)
                    await visitor.rerun()
                    seen.slide_seconds.append(time.perf_counter() - started)
                for page in ("Neurons", "Gate", "Chat"):
                    await visitor.open(page)
        except (TimeoutError, StopIteration, RuntimeError) as error:
            seen.problems.append(f"{type(error).__name__}: {error}")
        seen.problems += visitor.exceptions


async def one_reader(address: str, ends: float, seen: Seen) -> None:
    """Turns pages that need no model while the others work."""
    async with AppClient(address) as visitor:
        while time.monotonic() < ends:
            for page in ("Method", "Compare"):
                seen.look_seconds.append(await visitor.open(page))
                await asyncio.sleep(0.5)
        seen.problems += visitor.exceptions


async def find(visitor: AppClient, seen: Seen) -> None:
    started = time.perf_counter()
    await visitor.until(lambda: visitor.button("Find the gate") is not None or "Gate found" in visitor.texts)
    if "Gate found" not in visitor.texts:
        await visitor.press(visitor.button("Find the gate"))
        await visitor.until(lambda: "Gate found" in visitor.texts)
    seen.find_seconds.append(time.perf_counter() - started)


async def to_chat(visitor: AppClient, tokens: int) -> None:
    await visitor.open("Chat")
    await visitor.fill_number(LENGTH, tokens)
    await visitor.rerun()


async def ask(visitor: AppClient, seen: Seen) -> None:
    """Send the message as the first of a conversation, and wait until its answers have ended."""
    if (clear := visitor.button("Clear")) is not None:
        await visitor.press(clear)
        await visitor.until(lambda: visitor.button("Clear") is None)
    started = time.perf_counter()
    await visitor.until(lambda: any(not chat.disabled for chat in visitor.elements("chat_input")))
    await visitor.say(MESSAGE)
    await visitor.until(lambda: visitor.button("Stop") is not None)
    seen.silent_seconds.append(time.perf_counter() - started)
    await visitor.until(lambda: visitor.button("Regenerate") is not None and not visitor.is_running)
    seen.answer_seconds.append(time.perf_counter() - started)
    texts = _ANSWER.findall(visitor.markup)
    seen.answers.append(html.unescape(re.sub(r"<[^>]+>", "", texts[0])).strip() if texts else "(no answer)")


async def memory_after(server: psutil.Process, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return int(server.memory_info().rss)


def of(seconds: list[float], *summaries: Callable[[list[float]], float]) -> list[float]:
    """Summaries of some times, rounded; none if there are none."""
    return [round(float(summary(seconds)), 2) for summary in summaries] if seconds else []


def say(words: str) -> None:
    print(words, flush=True)


def server_of(address: str) -> psutil.Process:
    """The server's process: this program started it."""
    port = address.rsplit(":", 1)[1]
    return next(child for child in psutil.Process().children() if port in child.cmdline())


if __name__ == "__main__":
    main()
