"""Templates from outside are rendered in a child process, to the same texts as transformers renders."""

from pathlib import Path

import pytest

from cna_core.models import chat_templates
from cna_core.models.chat_templates import TemplateRejectedError, render, require_usable_template
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from tests.models.stand_in import save_tiny_model
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": " <b>“Why”</b> &\U0001f35e\u0301 "},
    {"role": "assistant", "content": "x\n\n\ty"},
    {"role": "user", "content": "again"},
]
EACH, END = "{% for m in messages %}", "{% endfor %}"
FEATURES = {
    "the tests' own": CHAT_TEMPLATE,
    "blocks on lines of their own": f"{EACH}\n  {{% if loop.first %}}\n  <\n  {{% endif %}}\n{{{{ m.role }}}}\n{END}\n",
    "dashes": "a  {%- for m in messages -%}  {{ m.content | trim }}  {%- endfor %}\n\nb",
    "a loop that breaks": EACH + "{% if loop.index0 == 2 %}{% break %}{% endif %}{{ m.role }}" + END,
    "a loop that continues": EACH + "{% if loop.first %}{% continue %}{% endif %}{{ m.role }}" + END,
    "a namespace": "{% set n = namespace(k=0, s='') %}" + EACH + "{% set n.k = n.k + 1 %}" + END + "{{ n.k }}{{ n.s }}",
    "JSON": "{{ messages | tojson }}{{ messages | tojson(indent=2, ensure_ascii=True) }}",
    "sorted JSON": "{{ {'b': 1, 'a': '<>'} | tojson(sort_keys=True, separators=(',', ':')) }}",
    "a dictionary": "{{ dict(a=1, b=messages[0].role) }}{{ dict.fromkeys(['x']) }}",
    "what is given": "{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ tools is none }}",
    "what is not given": "{{ nothing }}{{ nothing is defined }}{{ nothing | default('x') }}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}",
    "an answer marked for training": (
        EACH + "{% generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}{{ x }}" + END
    ),
    "a date": "{{ strftime_now('%d %b %Y') }}{{ strftime_now(format='%Y-%m-%d') }}",
    "switches": "{{ enable_thinking }}{{ thinking is false }}",
    "pieces of texts": "{{ messages[1].content.split('Why')[-1].strip().lstrip('”') }}{{ messages[3].content[:2] }}",
    "markup": "{{ messages[1].content }}{{ messages[1].content | e }}{{ '<i>' ~ messages[1].content }}",
    "a macro": (
        "{% macro say(m, end='.') %}{{ m.role }}{{ end }}{% endmacro %}"
        "{{ say(messages[0]) }}{{ say(messages[1], end='!') }}"
    ),
    "a conversation that it does not accept": "{{ raise_exception('Only users, no ' + messages[0].role) }}",
    "an error of Python": "{{ messages + 1 }}",
}


@pytest.mark.parametrize("template", FEATURES.values(), ids=FEATURES)
def test_both_ways_print_the_same(template: str) -> None:
    def printed(apart: bool) -> str:
        switches = {"enable_thinking": False, "thinking": False}
        try:
            return render("tiny", tiny_tokenizer(template), MESSAGES, switches, apart=apart)
        except TemplateRejectedError as problem:
            return f"rejected: {problem}"

    assert printed(apart=True) == printed(apart=False) != ""


def test_templates_may_take_turns() -> None:
    first, second = tiny_tokenizer("{{ messages[0].content }}1"), tiny_tokenizer("{{ messages[0].content }}2")
    words = [{"role": "user", "content": "x"}]
    assert [render("tiny", which, words, {}, apart=True) for which in (first, second, second, first)] == [
        "x1", "x2", "x2", "x1",
    ]  # fmt: skip


def test_a_process_that_was_ended_is_started_again() -> None:
    words = [{"role": "user", "content": "x"}]
    tokenizer = tiny_tokenizer("{{ messages[0].content }}")
    assert render("tiny", tokenizer, words, {}, apart=True) == "x"
    process = chat_templates._CHILD._process
    assert process is not None
    process.kill()
    process.wait()
    assert render("tiny", tokenizer, words, {}, apart=True) == "x"


def test_a_template_that_accepts_only_one_message_is_usable() -> None:
    only_one = "{% if messages | length > 1 %}{{ raise_exception('one!') }}{% endif %}{{ messages[0].content }}"
    require_usable_template("tiny", tiny_tokenizer(only_one))
    require_usable_template("tiny", tiny_tokenizer(None))


def test_the_template_of_a_folder_is_rendered_apart(tmp_path: Path) -> None:
    assert load_model(str(save_tiny_model(tmp_path / "tiny")), device="cpu").foreign_template


def test_the_template_of_an_embedded_model_is_rendered_here(small_model: LoadedModel) -> None:
    assert not small_model.foreign_template
