"""The built-in prompts: enough of them, apart from each other, and paired so that δ measures the request."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from cna_core.prompts.builtin import BUILTIN_SETS, builtin_categories
from cna_core.prompts.sets import ContrastSet, PromptSet

PAIRS = [("harmful", "benign"), ("evaluation-harmful", "evaluation-benign")]


def words(prompt: str) -> list[str]:
    return [word.strip(".,?!").casefold() for word in prompt.split()]


@pytest.mark.parametrize(
    ("name", "least"),
    [("harmful", 100), ("benign", 100), ("evaluation-harmful", 60), ("evaluation-benign", 60), ("borderline", 60)],
)
def test_every_set_is_large_enough_and_every_prompt_has_a_category(name: str, least: int) -> None:
    prompts = PromptSet.builtin(name)
    categories = builtin_categories(name)
    assert prompts.name == name
    assert len(prompts) >= least
    assert len(categories) == len(prompts) and all(categories)
    assert len(set(categories)) >= 8


def test_every_builtin_file_belongs_to_a_set_that_is_named() -> None:
    folder = next(iter(BUILTIN_SETS.values())).path.parent
    assert {path.stem for path in folder.iterdir()} == set(BUILTIN_SETS)


@pytest.mark.parametrize(("first", "second"), list(combinations(BUILTIN_SETS, 2)))
def test_no_prompt_is_in_two_sets(first: str, second: str) -> None:
    ContrastSet(PromptSet.builtin(first), PromptSet.builtin(second))
    one, other = ({tuple(words(prompt)) for prompt in PromptSet.builtin(name)} for name in (first, second))
    assert not one & other


@pytest.mark.parametrize(("discovery", "evaluation"), list(zip(*PAIRS, strict=True)))
def test_no_evaluation_prompt_is_nearly_a_discovery_prompt(discovery: str, evaluation: str) -> None:
    """Near: more than 60 % of the words of both together are shared."""
    seen = [set(words(prompt)) for prompt in PromptSet.builtin(discovery)]
    for prompt in PromptSet.builtin(evaluation):
        mine = set(words(prompt))
        nearest = max(seen, key=lambda theirs: len(mine & theirs) / len(mine | theirs))
        assert len(mine & nearest) / len(mine | nearest) <= 0.6, (prompt, sorted(nearest))


@pytest.mark.parametrize(("positive", "negative"), PAIRS)
def test_pairs_share_first_word_category_final_mark_and_nearly_the_length(positive: str, negative: str) -> None:
    pairs = list(zip(PromptSet.builtin(positive), PromptSet.builtin(negative), strict=True))
    for harmful, benign in pairs:
        assert words(harmful)[0] == words(benign)[0], (harmful, benign)
        assert harmful[-1] == benign[-1] and harmful[-1] in ".?", (harmful, benign)
        assert abs(len(words(harmful)) - len(words(benign))) <= 3, (harmful, benign)
    difference = sum(len(words(harmful)) - len(words(benign)) for harmful, benign in pairs) / len(pairs)
    assert abs(difference) < 0.25
    assert builtin_categories(positive) == builtin_categories(negative)


@pytest.mark.parametrize(("positive", "negative"), PAIRS)
def test_the_first_word_gives_nothing_away(positive: str, negative: str) -> None:
    def first(name: str) -> Counter[str]:
        return Counter(words(prompt)[0] for prompt in PromptSet.builtin(name))

    assert first(positive) == first(negative)


@pytest.mark.parametrize("name", list(BUILTIN_SETS))
def test_prompts_are_short_requests_in_plain_characters(name: str) -> None:
    for prompt in PromptSet.builtin(name):
        assert 4 <= len(words(prompt)) <= 15
        assert "\n" not in prompt and prompt.isascii()


def test_the_contrast_set_is_the_discovery_pair() -> None:
    contrast = ContrastSet.builtin()
    assert contrast.positive.name == "harmful" and contrast.negative.name == "benign"
    assert contrast.is_positive.sum() == len(contrast.positive) == len(contrast.negative)


def test_the_documented_sizes_are_the_sets_own() -> None:
    document = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    for name in BUILTIN_SETS:
        prompts = PromptSet.builtin(name)
        mean_words = sum(len(words(prompt)) for prompt in prompts) / len(prompts)
        assert f"\n| {name} | {len(prompts)} | {mean_words:.1f} |" in document
