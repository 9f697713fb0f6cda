"""The child process that renders chat templates: a program that chat_templates.py starts.

It imports only jinja2 and the standard library, so it starts in a moment and has nothing that a template could use. It
reads one conversation per line of JSON from standard input and answers each with one line. Its environment for
templates is that of transformers: the same extensions, filters and functions, tested to give the same texts.
"""

import contextlib
import json
import signal
import sys
from typing import IO, Any

import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_MEMORY_BYTES = 512 << 20
MOST_ADDED_CHARACTERS = 1_000_000
"""How much longer a rendered text may be than its conversation."""

UNREADABLE, REJECTED, TOO_LONG, NO_MEMORY = "unreadable", "rejected", "too long", "no memory"
"""What can keep a template from rendering a conversation."""


class Generation(jinja2.ext.Extension):
    """The tag `{% generation %}`, which marks an answer for training: its content is printed as it is."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class Dictionaries:
    """What templates know as `dict`: it makes dictionaries and has nothing else."""

    def __call__(self, *pairs: Any, **named: Any) -> dict[Any, Any]:
        return dict(*pairs, **named)

    def fromkeys(self, *given: Any) -> dict[Any, Any]:
        return dict.fromkeys(*given)


class PublicNamespace(Namespace):
    """A namespace whose names do not begin with an underscore."""

    def __init__(*given: Any, **named: Any) -> None:
        self, *pairs = given
        values = dict(*pairs, **named)
        for name in values:
            _require_public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no name {name!r}")


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox for templates; it has no loader, so `import`, `include` and `extends` find nothing."""

    def fail(message: object = "") -> None:
        raise jinja2.exceptions.TemplateError(str(message))

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    sandbox.filters["tojson"] = to_json
    sandbox.globals |= {"raise_exception": fail, "dict": Dictionaries(), "namespace": PublicNamespace}
    return sandbox


def answer(compiled: jinja2.Template, values: dict[str, Any]) -> dict[str, str]:
    """The rendered text, or what kept the template from rendering it, with the problem in its own words."""
    size = sum(len(message["content"]) for message in values["messages"])
    try:
        text = compiled.render(values)
    except MemoryError:
        return {"problem": NO_MEMORY}
    except Exception as problem:  # noqa: BLE001  a template is a program, which may raise anything
        return {"problem": REJECTED, "words": described(problem)}
    return {"text": text} if len(text) <= size + MOST_ADDED_CHARACTERS else {"problem": TOO_LONG}


def described(problem: Exception) -> str:
    """An exception of a template in its own words; those of other kinds than Jinja's after the kind's name."""
    words = str(problem)[:1000]
    return words if isinstance(problem, jinja2.TemplateError) else f"{type(problem).__name__}: {words}"


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more. A request holds the values, the CPU time and, if it is another one,
    the template."""
    compiled: jinja2.Template | None = None
    broken = {"problem": UNREADABLE, "words": "it was not sent"}
    for line in requests:
        request = json.loads(line)
        _limit_cpu_time(request["seconds"])
        if "template" in request:
            compiled = None
            try:
                compiled = environment().from_string(request["template"])
            except MemoryError:
                broken = {"problem": NO_MEMORY}
            except Exception as problem:  # noqa: BLE001  the parser and Python's compiler raise anything
                broken = {"problem": UNREADABLE, "words": described(problem)}
        try:
            line = json.dumps(broken if compiled is None else answer(compiled, request["values"]))
        except MemoryError:
            line = json.dumps({"problem": NO_MEMORY})
        answers.write(line + "\n")
        answers.flush()


def limit_resources() -> None:
    """Limit memory and forbid files, where the system can."""
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, MOST_MEMORY_BYTES),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(ValueError, OSError):  # macOS refuses some
                resource.setrlimit(kind, (most, most))


def _limit_cpu_time(seconds: float) -> None:
    """Let the system end this process after more than this CPU time, where it can; Windows cannot."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    limit_resources()
    serve(sys.stdin, sys.stdout)
