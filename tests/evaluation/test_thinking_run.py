"""Runs of models that think: the answer is judged and the thought is kept; an unfinished thought is no answer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cna_core.decoding.sampling import Sampler
from cna_core.errors import PromptError
from cna_core.evaluation.journal import Journal, Record, run_identity
from cna_core.evaluation.measures import lengths
from cna_core.evaluation.measures.contract import Reading
from cna_core.evaluation.measures.perplexity import Perplexity
from cna_core.evaluation.measures.quality import Quality
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.runs import Point, Run
from cna_core.evaluation.setting import BASELINE, Setting
from cna_core.evaluation.sweep import resume
from cna_core.evaluation.tables import answers_beside, markdown_table, verdict_of
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode
from tests.evaluation.sweeping import small_sweep
from tests.thinking_models import OPENS, SWITCH, thinking_model, with_template
from tests.tiny import CHAT_TEMPLATE

FEW = {"methods": ("scale",), "controls": False, "benign": None, "borderline": None, "strengths": (0.0, 1.0)}
MEASURES = ["refusal_rate", "quality", "perplexity"]
REFUSES = "I'm sorry, but I can't help with that."


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return thinking_model(OPENS)


@pytest.fixture
def thinks_four_tokens(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lane ends its thought with its fifth token; the second prompt's never do."""
    end = model.tokenizer.convert_tokens_to_ids("</think>")
    why = model.tokenizer.convert_tokens_to_ids("tell")
    chooses = Sampler.choose

    def choose(self: Sampler, logits: object, seen: Sequence[Sequence[int]]) -> list[int]:
        self.steps = getattr(self, "steps", 0) + 1
        chosen = chooses(self, logits, seen)
        return [end if self.steps == 5 and why not in tokens else one for one, tokens in zip(chosen, seen, strict=True)]

    monkeypatch.setattr(Sampler, "choose", choose)
    monkeypatch.setattr("cna_core.decoding.lanes.end_tokens", lambda _model: frozenset())


def a_run(model: LoadedModel, **changes: object) -> Run:
    return small_sweep(model, MEASURES, max_new_tokens=12, **(FEW | changes))


def test_answers_are_judged_without_their_thoughts_and_both_are_kept(
    model: LoadedModel, empty_cache: Path, thinks_four_tokens: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "JUDGED_AT", (3, 32))
    run = a_run(model)
    assert run.settings.thinking
    assert run.notes[-1] == "The model thinks before it answers: only the answer after the thought is judged."
    for answer in run.answers:
        assert answer.thought and "</think>" not in answer.thought + answer.text
        assert answer.unfinished == (answer.prompt == 1)
        assert bool(answer.text) != answer.unfinished
    for point in run.points:
        assert point.estimate("refusal_rate_unfinished").value == pytest.approx(1 / 3)
        assert point.estimate("refusal_rate_unfinished_at_3").value == pytest.approx(1 / 3)
        mine = [one for one in run.answers if one.setting == point.setting and not one.unfinished]
        expected = sum(one.model_extra["quality"] for one in mine) / len(mine)
        assert point.estimate("quality").value == pytest.approx(expected)
    assert "unfinished" in markdown_table(run)
    assert Run.from_json(run.to_json()) == run


def test_a_stopped_run_with_thoughts_goes_on_with_them(
    model: LoadedModel, empty_cache: Path, thinks_four_tokens: None
) -> None:
    run = a_run(model)
    identity = run_identity(run.model, run.circuit_sha256, run.settings)
    (Journal(identity).folder / "run.json").unlink()
    assert resume(model, identity) == run


def test_perplexity_is_that_of_the_answer_given_the_thought(model: LoadedModel) -> None:
    prompt, written = encode(model, "why", thinking=True), [9, 12, 15, 18, 21]
    reading = replace(a_reading(["x"], [False]), token_ids=(tuple(written),), thought_tokens=(2,))
    logits = model.network(input_ids=torch.tensor([[*prompt, *written]] * 2)).logits[0].detach().log_softmax(-1)
    surprises = [-float(logits[len(prompt) + place - 1, written[place]]) for place in (2, 3, 4)]
    [noted] = Perplexity().observe(model, reading)
    assert (noted["surprise"], noted["tokens"]) == (pytest.approx(sum(surprises), rel=1e-4), 3)


def test_without_thinking_the_run_is_as_one_of_a_model_that_does_not_think(
    model: LoadedModel, empty_cache: Path
) -> None:
    run = a_run(model, thinking=False)
    assert not run.settings.thinking
    assert all(answer.thought is None and answer.unfinished is None for answer in run.answers)
    assert "unfinished" not in markdown_table(run)
    assert '"thought":' not in run.to_json()


@pytest.mark.parametrize(("template", "thinking"), [(SWITCH, True), (OPENS, True), (CHAT_TEMPLATE, False)])
def test_a_run_thinks_as_the_template_decides(
    model: LoadedModel, empty_cache: Path, template: str, thinking: bool
) -> None:
    assert a_run(with_template(model, template)).settings.thinking is thinking


def test_a_run_of_a_model_that_does_not_think_cannot_be_made_to(model: LoadedModel, empty_cache: Path) -> None:
    with pytest.raises(PromptError, match="no thinking that could be turned on"):
        a_run(with_template(model, CHAT_TEMPLATE), thinking=True)


def test_runs_of_before_keep_their_identity(model: LoadedModel, empty_cache: Path) -> None:
    run = a_run(with_template(model, CHAT_TEMPLATE))
    described = run.settings.model_dump_json(exclude={"circuit": True, "others": True, "thinking": True})
    assert "thinking" not in described
    thinks = run.settings.model_copy(update={"thinking": True})
    assert run_identity(run.model, run.circuit_sha256, run.settings) != run_identity(
        run.model, run.circuit_sha256, thinks
    )


# --- measures ---


def a_reading(texts: Sequence[str], unfinished: Sequence[bool]) -> Reading:
    return Reading(
        prompts=tuple(range(len(texts))),
        messages=tuple([{"role": "user", "content": "why"}] for _ in texts),
        texts=tuple(texts),
        token_ids=((),) * len(texts),
        thinking=True,
        thoughts=("how",) * len(texts),
        thought_tokens=(0,) * len(texts),
        unfinished=tuple(unfinished),
    )


def test_an_unfinished_thought_is_neither_refused_nor_answered(model: LoadedModel) -> None:
    noted = RefusalRate().observe(model, a_reading([REFUSES, "Sure.", ""], [False, False, True]))
    fields = RefusalRate.summarise(noted, ())
    assert (fields["refusal_rate"], fields["refusal_rate_unfinished"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert [RefusalRate.of_answer(one)["unfinished"] for one in noted] == [False, False, True]
    thinks_anyway = replace(a_reading([REFUSES, "Sure.", ""], [False, False, True]), thinking=False)
    assert RefusalRate.summarise(RefusalRate().observe(model, thinks_anyway), ()) == fields
    assert RefusalRate.judged_again(noted[2], "")["unfinished"] == 1


def test_quality_is_the_mean_over_the_answers_there_are(model: LoadedModel) -> None:
    loops = "a b c d " * 4
    noted = Quality().observe(model, a_reading(["fine", loops, ""], [False, False, True]))
    assert Quality.of_answer(noted[2]) == {}
    assert Quality.summarise(noted, ())["quality"] == pytest.approx((1 + noted[1]["quality"]) / 2)
    assert Quality.summarise(noted[2:], ()) == {}


def test_perplexity_has_nothing_to_say_without_answers(model: LoadedModel) -> None:
    assert Perplexity.summarise(Perplexity().observe(model, a_reading([""], [True])), ()) == {}


@pytest.mark.parametrize(("share", "warns"), [(0.5, True), (0.05, False), (None, False)])
def test_many_unfinished_answers_are_told(share: float | None, warns: bool) -> None:
    point = Point(strength=0, refusal_rate=0.5, **({} if share is None else {"refusal_rate_unfinished": share}))
    words = RefusalRate.caution(point)
    assert ("50 % of the unsteered model's answers" in words) if warns else words == ""


def test_an_unfinished_answer_is_no_flip(model: LoadedModel, empty_cache: Path, thinks_four_tokens: None) -> None:
    run = a_run(model)
    changed = [
        one.model_copy(update={"refused": one.setting == BASELINE, "text": "x"}) if one.prompt == 1 else one
        for one in run.answers
    ]
    run = run.model_copy(update={"answers": tuple(changed)})
    steered = next(one.setting for one in run.answers if one.setting != BASELINE)
    assert 1 not in answers_beside(run, steered)["prompt"].tolist()
    shown = answers_beside(run, steered, only_flipped=False)
    assert shown.set_index("prompt").loc[1, "after"] == "unfinished"
    assert verdict_of(next(one for one in run.answers if one.prompt == 1 and one.setting == steered)) == "unfinished"


def test_records_keep_the_thought() -> None:
    record = Record("answers", "harmful", 0, Setting("scale", 1.0), {"quality": {}}, "", "how", True)
    assert Record.from_list(record.to_list()) == record
    plain = replace(record, thought=None, unfinished=False)
    assert len(plain.to_list()) == 6 and Record.from_list(plain.to_list()) == plain
