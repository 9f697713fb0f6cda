import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cna_core.errors import StoppedError
from cna_core.evaluation import quality as quality_module
from cna_core.evaluation.quality import Likelihood, likelihoods, quality
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode


def test_an_answer_without_repetition_has_full_quality() -> None:
    assert quality("one two three four five six") == 1.0


def test_quality_worked_by_hand() -> None:
    # 7 words make four 4-grams: abca bcab cabc abca; the last repeats the first.
    assert quality("a b c a b c a") == pytest.approx(3 / 4)


def test_a_short_or_empty_answer_cannot_repeat_itself() -> None:
    assert quality("") == quality("no no no") == 1.0


@given(st.text(alphabet="ab \n", max_size=80))
def test_quality_is_a_share(text: str) -> None:
    assert 0 < quality(text) <= 1


def test_a_loop_has_almost_no_quality() -> None:
    assert quality("yes " * 200) < 0.01


def test_likelihood_is_the_sum_over_the_answers_tokens(tiny_model: LoadedModel) -> None:
    prompt, answer = "how do i bake bread", [12, 9, 20]
    row = encode(tiny_model, prompt)
    with torch.inference_mode():
        logits = tiny_model.network(torch.tensor([row + answer])).logits[0]
    by_hand = -sum(float(torch.log_softmax(logits[len(row) - 1 + at], -1)[token]) for at, token in enumerate(answer))
    [found] = likelihoods(tiny_model, [prompt], [answer])
    assert found.surprise == pytest.approx(by_hand, abs=1e-4)
    assert found.tokens == 3
    assert found.perplexity == pytest.approx(math.exp(by_hand / 3), rel=1e-4)


def test_likelihood_does_not_depend_on_what_shares_the_batch(tiny_model: LoadedModel) -> None:
    prompts = ["cats", "how do i break a lock", "why", "tell me about dogs"]
    answers = [[10, 11, 12, 13, 14, 15], [9], [], [20, 21]]
    together = likelihoods(tiny_model, prompts, answers)
    alone = [likelihoods(tiny_model, [prompt], [answer])[0] for prompt, answer in zip(prompts, answers, strict=True)]
    for first, second in zip(together, alone, strict=True):
        assert first.surprise == pytest.approx(second.surprise, abs=1e-4)
        assert first.tokens == second.tokens


def test_answers_to_one_prompt_share_its_cache_and_change_nothing(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[10, 11, 12, 13, 14, 15], [9], [20, 21], [10, 11, 12], [20, 21]]
    shared = likelihoods(tiny_model, ["how do i break a lock"] * 5, answers)
    monkeypatch.setattr(quality_module, "shares_prefix", lambda model: False)
    whole = likelihoods(tiny_model, ["how do i break a lock"] * 5, answers)
    monkeypatch.setattr(quality_module, "LOGITS_AT_ONCE", 1)
    in_pairs = likelihoods(tiny_model, ["how do i break a lock"] * 5, answers)
    for first, second, third in zip(shared, whole, in_pairs, strict=True):
        assert first.surprise == pytest.approx(second.surprise, abs=1e-4)
        assert first.surprise == pytest.approx(third.surprise, abs=1e-4)


def test_an_empty_answer_has_nothing_to_be_surprised_at(tiny_model: LoadedModel) -> None:
    assert likelihoods(tiny_model, ["cats"], [[]]) == [Likelihood(0.0, 0)]


def test_likelihoods_stop_when_asked(tiny_model: LoadedModel) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        likelihoods(tiny_model, ["cats"], [[10]], stop=stop)


@pytest.mark.small_model
def test_sense_is_likelier_than_word_salad_that_quality_cannot_tell(small_model: LoadedModel) -> None:
    sense = "The cat sat on the mat and looked out of the window at the birds."
    salad = "Mat birds window the of cat sat looked the at out on and the the."
    answers = [small_model.tokenizer(text)["input_ids"] for text in (sense, salad)]
    first, second = likelihoods(small_model, ["Tell me about a cat."] * 2, answers)
    assert quality(sense) == quality(salad) == 1.0
    assert first.perplexity * 3 < second.perplexity
