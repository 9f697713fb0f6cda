"""`generate` with models that think: the option, the two parts, and what cannot be asked for."""

import json
from pathlib import Path

import pytest

from cna_core.cli import answering
from cna_core.errors import CnaError
from cna_core.models.loaded import LoadedModel
from tests.decoding.models import spread_circuit
from tests.thinking_models import OPENS, SWITCH, thinking_model, with_template
from tests.tiny import CHAT_TEMPLATE


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return thinking_model(OPENS)


def generated(
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    **options: object,
) -> str:
    monkeypatch.setattr(answering, "load", lambda *_, **__: model)
    circuit = spread_circuit(model, size=40).save(tmp_path / "c.json")
    answering.generate("tiny", "why", circuit, max_new_tokens=5, **options)  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_a_thought_that_does_not_end_is_printed_without_an_answer(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = generated(model, tmp_path, monkeypatch, capsys)
    assert said.count("[thought]") == 2
    assert said.count(answering.NO_ANSWER) == 2


def test_json_keeps_thought_and_answer_apart(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(generated(model, tmp_path, monkeypatch, capsys, as_json=True, steer="thought"))
    assert content["thinking"] and content["steers"] == "thought"
    assert all(answer["unfinished"] and answer["thought"] and not answer["text"] for answer in content["answers"])


@pytest.mark.parametrize("template", [SWITCH, OPENS])
def test_without_thinking_there_is_only_an_answer(
    model: LoadedModel,
    template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = with_template(model, template)
    content = json.loads(generated(model, tmp_path, monkeypatch, capsys, as_json=True, thinking=False))
    assert all(answer["text"] and "thought" not in answer for answer in content["answers"])


@pytest.mark.parametrize(
    ("template", "options", "said"),
    [
        (CHAT_TEMPLATE, {"thinking": True}, "no thinking that could be turned on"),
        (CHAT_TEMPLATE, {"steer": "thought"}, "--steer thought needs a model that thinks"),
        (SWITCH, {"steer": "answer", "thinking": False}, "and --thinking"),
        (SWITCH, {"steer": "sideways"}, "--steer must be one of both, thought, answer"),
    ],
)
def test_what_a_model_cannot_do_is_one_sentence(
    model: LoadedModel, template: str, options: dict[str, object], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(CnaError, match=said):
        generated(with_template(model, template), tmp_path, monkeypatch, capsys, **options)
