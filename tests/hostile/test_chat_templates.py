"""Chat templates that somebody else made: programs that loop, grow, reach out, or behave on their trial only.

Each is tried as `load_model` tries it, and then used. A text or one sentence must come of it, and soon.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cna_core.cli import main
from cna_core.errors import ModelError
from cna_core.models import chat_templates
from cna_core.models.chat_templates import LARGEST_TEMPLATE, LIMIT, require_usable_template
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import as_messages, encode, format_messages, has_system_role, thinking_format
from tests.hostile.inputs import MARKUP, UNSHOWN, shortly
from tests.hostile.outcome import checked, outcome, refused
from tests.models.stand_in import save_tiny_model
from tests.serving.models import served
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
DOUBLES = "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"

BEYOND = {
    "nested loops": LOOPS,
    "a loop over letters": "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{{ a }}{% endfor %}{% endfor %}",
    "a tower of powers": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "a tower of powers that is not printed": "{% set a = messages | length %}{% if (99 + a) ** 99999999 %}{% endif %}",
    "macros that call each other for ever": (
        "{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) }}{% endfor %}{% endmacro %}"
        "{% macro g(n) %}{% if n < 9 %}{% for i in range(99) %}{{ g(n + 1) }}{% endfor %}{% endif %}{% endmacro %}"
        "{{ g(0) }}"
    ),
    "a huge text": "{{ 'x' * 10 ** 10 }}",
    "a huge text that is not printed": "{% set x = 'x' * 10 ** 10 %}",
    "a text that doubles": DOUBLES,
    "a long text": "{{ 'x' * 2000000 }}",
    "a long text of short ones": "{% for i in range(99999) %}xxxxxxxxxxxxxxxxxxxx{% endfor %}",
    "a huge width": "{{ 'x'.ljust(10 ** 10) }}",
    "a huge format": "{{ '%10000000000d' % 1 }}",
    "a huge format by its name": "{{ '{:10000000000}'.format(1) }}",
    "a huge filter": "{{ 'x' | center(10 ** 10) }}",
    "a huge indentation": "{{ [1] | tojson(indent=10 ** 10) }}",
    "huge nonsense": "{{ lipsum(n=10 ** 6) }}",
    "a long list": "{% set x = ['x'] * 10 ** 9 %}",
}
"""Templates that go beyond a limit whatever the conversation is."""

UNREADABLE = {
    "no end": "{% for m in messages %}",
    "an unknown tag": "{% include_all %}",
    "an unknown filter": "{{ messages | shell }}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep loops": "{% for a in [1] %}" * 500 + "x" + "{% endfor %}" * 500,
    "a million characters": "x" * 1_000_000,
    "a million characters of program": "{{ 1 }}" * 150_000,
    "one more character than is read": "x" * (LARGEST_TEMPLATE + 1),
}
"""Templates that are none, or are too large."""

REACHING = {
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a class by a filter": "{{ '' | attr('__class__') | attr('__mro__') | last }}",
    "a class by format": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "a class by format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "a class by map": "{{ [''] | map(attribute='__class__') | list }}",
    "globals of a function": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "globals of a namespace": "{{ namespace.__init__.__globals__ }}",
    "globals of the template": "{{ self._TemplateReference__context.environment.loader }}",
    "a namespace with hidden names": "{% set n = namespace(__class__=1) %}{{ n }}",
    "a change of the conversation": "{{ messages.append(1) }}{{ messages.clear() }}",
    "a change of a message": "{{ messages[0].update({'content': 'x'}) }}",
    "code of a macro": "{% macro m() %}{% endmacro %}{{ m.__call__.__code__ }}",
    "a frame of a generator": "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "builtins": "{{ __builtins__.open('ran.txt', 'w') }}",
    "an import": "{% import 'os' as os %}{{ os.getcwd() }}",
    "an import from": "{% from 'os' import getcwd %}{{ getcwd() }}",
    "an include": "{% include '/etc/passwd' %}",
    "an include that may fail": "{% include ['a', '/etc/passwd'] ignore missing %}",
    "a base": "{% extends '/etc/passwd' %}",
    "a base that is a class": "{% extends ''.__class__ %}",
}
"""Templates that look for what is not theirs."""

RAISING = {
    "zero": "{{ 1 / (messages | length - messages | length) }}",
    "zero at once": "{{ 1 / 0 }}",
    "an overflow": "{{ 2.0 ** 99999 }}",
    "a type": "{{ messages + 1 }}",
    "a value": "{{ 'x'.index('y') }}",
    "a key": "{{ {}.popitem() }}",
    "a place": "{{ [].pop() }}",
    "a long number": "{{ 10 ** 5000 }}",
    "a range": "{{ range(100001) | list }}",
    "a comparison": "{{ messages < 1 }}",
    "what is not defined": "{{ nothing.at.all }}",
    "a recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a recursion of loops": "{% for m in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
    "itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "no memory, it says": "{{ raise_exception('MemoryError') }}",
    "a long complaint": "{{ raise_exception('no ' * 100000) }}",
    "no word": "{{ raise_exception() }}",
    "a number": "{{ raise_exception(messages) }}",
    "an encoding": "{{ '\\ud800'.encode() }}",
    "half of a character": "{{ '\\ud800' }}",
    "nothing": "{{ '' }}",
    "spaces": "{{ ' ' }}",
    **{f"complaint {shortly(text)}": "{{ raise_exception(" + json.dumps(text) + ") }}" for text in (*MARKUP, *UNSHOWN)},
}
"""Templates that end in an exception of any kind, or in nothing."""


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of CPU time, lowered, so that the tests need not use it up."""
    monkeypatch.setattr(chat_templates, "MOST_CPU_SECONDS", 0.4)


def templated(model: LoadedModel, template: Any) -> LoadedModel:
    """The tiny model with a template from outside, as `load_model` gives it."""
    return replace(model, tokenizer=tiny_tokenizer(template), foreign_template=True)


def used(model: LoadedModel) -> list[Any]:
    """What comes of every use of a template, and whether it can be tried."""
    return [
        outcome(require_usable_template, "tiny", model.tokenizer),
        outcome(has_system_role, model),
        outcome(thinking_format, model),
        outcome(format_messages, model, as_messages("how do i", system="help")),
        outcome(encode, model, "how do i"),
        outcome(encode, model, as_messages("how do i"), True),
    ]


@pytest.mark.parametrize("template", BEYOND.values(), ids=BEYOND)
def test_a_template_beyond_its_limits_is_refused_when_it_is_loaded(tiny_model: LoadedModel, template: str) -> None:
    with pytest.raises(ModelError, match="chat template of 'tiny'") as caught:
        require_usable_template("tiny", templated(tiny_model, template).tokenizer)
    checked(str(caught.value))
    assert caught.value.code == LIMIT


@pytest.mark.parametrize("template", UNREADABLE.values(), ids=UNREADABLE)
def test_a_template_that_is_none_is_refused_when_it_is_loaded(tiny_model: LoadedModel, template: str) -> None:
    said = refused(require_usable_template, "tiny", templated(tiny_model, template).tokenizer)
    assert "chat template of 'tiny'" in said


@pytest.mark.parametrize("template", REACHING.values(), ids=REACHING)
@pytest.mark.parametrize("foreign", [True, False], ids=["apart", "here"])
def test_a_template_reaches_nothing(tiny_model: LoadedModel, template: str, foreign: bool) -> None:
    model = replace(templated(tiny_model, template), foreign_template=foreign)
    text = outcome(format_messages, model, as_messages("how do i"))
    assert not any(found in text for found in ("<class", "<module", "<function", "<code", "uid=", "root:", "built-in"))
    assert all(isinstance(found, str | list | bool | type(None)) for found in used(model))


@pytest.mark.parametrize("template", RAISING.values(), ids=RAISING)
@pytest.mark.parametrize("foreign", [True, False], ids=["apart", "here"])
def test_a_template_that_fails_ends_in_one_sentence(tiny_model: LoadedModel, template: str, foreign: bool) -> None:
    model = replace(templated(tiny_model, template), foreign_template=foreign)
    if template != RAISING["what is not defined"]:  # Jinja's sandbox raises for it, too, one level deeper
        refused(encode, model, "how do i")
    used(model)


@pytest.mark.parametrize("template", [LOOPS, DOUBLES, "{{ 'x' * 10 ** 10 }}", "{{ 1 / 0 }}"], ids=shortly)
def test_a_template_that_behaves_on_its_trial_is_stopped_when_it_is_used(
    tiny_model: LoadedModel, template: str
) -> None:
    later = "{% if messages[-1].content == 'why is bread' %}" + template + "{% endif %}" + CHAT_TEMPLATE
    model = templated(tiny_model, later)
    require_usable_template("tiny", model.tokenizer)
    before = encode(model, "how do i")
    assert "chat template" in refused(encode, model, "why is bread")
    assert encode(model, "how do i") == before == encode(tiny_model, "how do i")


@pytest.mark.parametrize("text", [*MARKUP, *(text for text in UNSHOWN if text.isprintable())], ids=shortly)
def test_a_template_with_markup_prints_it_as_text(tiny_model: LoadedModel, text: str) -> None:
    assert format_messages(templated(tiny_model, text), as_messages("how")) == text


@settings(max_examples=60)
@given(st.text(alphabet="{}%#-+ abm.[]()'|~\n\ud800\u202e\x000", max_size=60))
def test_any_text_is_a_template_or_refused(tiny_model: LoadedModel, template: str) -> None:
    model = templated(tiny_model, template)
    used(model)


@pytest.fixture
def folder(good: Path, made: Path) -> Path:
    shutil.copytree(good, made / "tiny")
    return made / "tiny"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("good") / "tiny")


def in_its_file(template: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(template) and None


def in_the_configuration(value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        content = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(content | {"chat_template": value}))

    return change


def as_bytes(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")


def as_a_folder(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").mkdir()


FOLDERS: dict[str, Callable[[Path], None]] = {
    "a loop": in_its_file(LOOPS),
    "a huge text": in_its_file("{{ 'x' * 10 ** 10 }}"),
    "a loop in the configuration": in_the_configuration(LOOPS),
    "no template": in_its_file("{% for"),
    "a number": in_the_configuration(7),
    "a number below zero": in_the_configuration(-1e300),
    "true": in_the_configuration(True),
    "a list of numbers": in_the_configuration([1, 2]),
    "a list of texts": in_the_configuration(["x"]),
    "a list without names": in_the_configuration([{"template": "x"}]),
    "a list of templates that are numbers": in_the_configuration([{"name": "default", "template": 7}]),
    "templates without a default": in_the_configuration({"a": "x", "b": "y"}),
    "a default that is a list": in_the_configuration({"default": ["x"]}),
    "a default that loops": in_the_configuration({"default": LOOPS, "tool_use": "x"}),
    "no text": as_bytes,
}


@pytest.mark.parametrize("change", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_with_such_a_template_is_refused_in_one_sentence(change: Callable[[Path], None], folder: Path) -> None:
    change(folder)
    refused(load_model, str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize("change", [in_the_configuration({"default": "x", "a": LOOPS}), as_a_folder], ids=["ok", "dir"])
def test_a_folder_with_another_template_or_none_is_loaded(change: Callable[[Path], None], folder: Path) -> None:
    change(folder)
    model = load_model(str(folder), device="cpu", dtype="float32")
    assert encode(model, "how do i")


def test_the_command_line_says_it_in_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for template in (LOOPS, "{{ 1 / 0 }}", "{% include 'x' %}"):
        in_its_file(template)(folder)
        line = ("generate", str(folder), "--prompt", "how", "--device", "cpu", "--method", "direction")
        monkeypatch.setattr(sys, "argv", ["refusal-gate", *line])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert "chat template" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% include 'x' %}", LOOPS, "{{ raise_exception('\\ud800<b>') }}"])
def test_the_endpoint_says_it_in_one_sentence_and_goes_on(tiny_model: LoadedModel, template: str) -> None:
    sometimes = "{% if messages[-1].content == 'why' %}" + template + "{% endif %}" + CHAT_TEMPLATE
    with served(templated(tiny_model, sometimes), {}) as server:
        for content, status in (("why", 400), ("how", 200), ("why", 400), ("how", 200)):
            message = {"role": "user", "content": content}
            answer = server.post("/v1/chat/completions", {"model": "baseline", "messages": [message], "max_tokens": 1})
            assert answer.status_code == status
            if status == 400:
                assert "chat template" in checked(answer.json()["error"]["message"])
