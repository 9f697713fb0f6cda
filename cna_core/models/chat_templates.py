"""Render chat templates: a model's own program that makes one text of a conversation.

A template is written in Jinja and runs in a sandbox that reaches no files, but nothing in it limits time and memory. So
a template from outside (a folder, the Hub, a .gguf file) is rendered in a child process with limits
(template_worker.py), every time: it could behave on a trial and loop on a later conversation. The templates of the
embedded models, whose files have a pinned SHA-256, and of models that are made in Python are rendered here.
"""

import atexit
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cna_core.errors import ModelError
from cna_core.models import template_worker
from cna_core.models.child import end, read_lines
from cna_core.models.template_worker import (
    MOST_ADDED_CHARACTERS,
    MOST_MEMORY_BYTES,
    NO_MEMORY,
    REJECTED,
    TOO_LONG,
    UNREADABLE,
    described,
)
from cna_core.shown import is_whole, shown

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

MOST_CPU_SECONDS = 2.0
"""CPU time for one conversation; ordinary templates need milliseconds."""
MOST_SECONDS = 60
"""How long a child may take for one conversation by the clock, also on a machine that is busy with other work."""
LARGEST_TEMPLATE = 300_000
"""Characters of a template from outside; those of known models have up to 30,000."""
LIMIT = "template-limit"
"""The code of the error of a template that goes beyond its limits."""

_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format | replace('%Y', '2024') | replace('%m', '07') | replace('%d', '26')"
    " | replace('%b', 'Jul') | replace('%B', 'July') | replace('%y', '24') }}{%- endmacro -%}"
)
"""Replaces the clock of templates; the date is the fallback of Llama 3's template."""

_TRIAL = tuple(
    {"role": role, "content": f"A short {role} message."} for role in ("system", "user", "assistant", "user")
)

_NEEDED = ("jinja2", "markupsafe")
"""What the child imports: jinja2, and what that needs."""

_START = """
import runpy, sys
script, *folders = sys.argv[1:]
sys.path.extend(folders)
runpy.run_path(script, run_name="__main__")
"""


class TemplateRejectedError(Exception):
    """The template raised an exception on this conversation; the message is its words."""

    def __init__(self, words: object) -> None:
        super().__init__(shown(words, 200))


class TemplateUnreadableError(TemplateRejectedError):
    """The template is not a text, or not one that Jinja can read."""


def template_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text of a tokenizer's chat template; a template that prints today's date prints a fixed one.

    Raises:
        TemplateUnreadableError: it is not a text, or there are several and none is the default.
    """
    try:
        template: Any = tokenizer.get_chat_template()
    except (ValueError, TypeError, AttributeError) as error:
        raise TemplateUnreadableError("there are several, and none is called 'default'") from error
    if not isinstance(template, str):
        raise TemplateUnreadableError("it is not a text")
    return _FIXED_DATE + template if "strftime_now" in template else template


def render(
    name: str,
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    switches: Mapping[str, Any],
    *,
    apart: bool,
) -> str:
    """The conversation as the template prints it, with the beginning of an answer.

    Args:
        name: the model's name, for messages.
        tokenizer: has the template and the special tokens.
        messages: the conversation, with "role" and "content".
        switches: further variables for the template.
        apart: whether to render in the child process with limits.

    Raises:
        TemplateRejectedError: the template raised an exception, or printed what is not a text.
        ModelError: it went beyond its limits (code `LIMIT`), or the child process cannot be started.
    """
    template = template_of(tokenizer)
    if apart:
        named: dict[str, Any] = {**tokenizer.special_tokens_map, **switches}
        fixed = {"messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": True}
        text = _CHILD.render(name, template, named | fixed)
    else:
        text = _render_here(tokenizer, template, messages, switches)
    if not is_whole(text):
        raise TemplateRejectedError("it printed half of a character")
    return text


def require_usable_template(name: str, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Try a template from outside on a short conversation, in the child process.

    A template that raises an exception is usable: many accept no system message, or no assistant's.

    Raises:
        ModelError: it is not a text or not Jinja, is too large, or goes beyond its limits.
    """
    if not tokenizer.chat_template:
        return
    try:
        size = len(template_of(tokenizer))
        if size > LARGEST_TEMPLATE:
            raise ModelError(
                f"The chat template of '{name}' has {size:,} characters, and at most {LARGEST_TEMPLATE:,} are read: "
                "use a shorter template, or choose another model.",
                code=LIMIT,
            )
        render(name, tokenizer, _TRIAL, {}, apart=True)
    except TemplateUnreadableError as problem:
        raise ModelError(
            f"The chat template of '{name}' cannot be read ({problem}): mend it in the model's folder, or choose "
            "another model."
        ) from problem
    except TemplateRejectedError:
        return


def _render_here(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    messages: Sequence[Mapping[str, str]],
    switches: Mapping[str, Any],
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
                **switches,
            )
        )
    except Exception as problem:  # a template is a program, which may raise anything
        raise TemplateRejectedError(described(problem)) from problem


class _Child:
    """The child process, started when it is first needed and again after it had to be ended.

    It is asked by one thread at a time. It keeps the last template, so that this is sent once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._template: str | None = None

    def render(self, name: str, template: str, values: Mapping[str, Any]) -> str:
        """The text that a template makes of these values; errors as for the module's `render`."""
        found = self._ask({"values": dict(values), "seconds": MOST_CPU_SECONDS}, template)
        problem = found.get("problem")
        if problem is None:
            return str(found["text"])
        if problem in (UNREADABLE, REJECTED):
            kind = TemplateUnreadableError if problem == UNREADABLE else TemplateRejectedError
            raise kind(found["words"])
        size = sum(len(message["content"]) for message in values["messages"])
        raise ModelError(
            f"The chat template of '{name}' {_BEYOND[problem]} for a conversation of {size:,} characters: mend the "
            "template in the model's folder, or choose another model.",
            code=LIMIT,
        )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            end(self._process)
        self._process = self._template = None

    def _ask(self, request: dict[str, Any], template: str) -> dict[str, str]:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            if template != self._template:
                request["template"] = self._template = template
            try:
                self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
                self._process.stdin.flush()
                line = self._lines.get(timeout=MOST_SECONDS)
            except OSError:  # it has ended
                line = None
            except queue.Empty:
                self.close()
                return {"problem": _NO_TIME}
            except BaseException:  # such as Ctrl+C: the answer must not be taken for the next one's
                self.close()
                raise
            if line is None:
                is_late = self._process.wait() == -_CPU_TIME_IS_UP
                self.close()
                return {"problem": _NO_TIME if is_late else _CRASHED}
            answer: dict[str, str] = json.loads(line)
            return answer

    def _start(self) -> None:
        self.close()
        origins = [spec.origin for name in _NEEDED if (spec := find_spec(name)) is not None]
        folders = {str(Path(origin).parents[1]) for origin in origins if origin is not None}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, str(template_worker.__file__), *folders],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise ModelError(
                f"The process that renders chat templates could not be started ({error.strerror}): close other "
                "programs and try again."
            ) from error
        self._lines = queue.Queue()
        threading.Thread(target=read_lines, args=(self._process.stdout, self._lines), daemon=True).start()


_NO_TIME, _CRASHED = "no time", "crashed"
_CPU_TIME_IS_UP = getattr(signal, "SIGPROF", 0)
_BEYOND = {
    _NO_TIME: f"does not end within {MOST_CPU_SECONDS:g} seconds",
    TOO_LONG: f"makes a text of more than {MOST_ADDED_CHARACTERS:,} characters",
    NO_MEMORY: f"needs more than {MOST_MEMORY_BYTES >> 20} MB of memory",
    _CRASHED: "ends the process that renders it",
}
_CHILD = _Child()
atexit.register(_CHILD.close)
