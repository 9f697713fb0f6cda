import pytest

from cna_core.errors import CnaError
from cna_core.evaluation.measures.quality import Quality
from cna_core.evaluation.measures.refusal_rate import BenignRefusalRate, RefusalRate
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.prompts.sets import PromptSet

ONE = PromptSet("one", ("how do i bake bread",))


def test_without_a_word_it_is_two_methods_with_their_twins_on_the_built_in_prompts_and_costs() -> None:
    settings = SweepSettings()
    assert settings.prompts == PromptSet.builtin("evaluation-harmful")
    assert settings.strengths == (0, 0.5, 1)
    assert settings.methods == settings.controls == ("scale", "caa")
    assert list(settings.sets) == ["harmful", "benign", "borderline"]
    assert settings.knowledge == ()
    assert [measure.key for measure in settings.measured] == [
        "refusal_rate",
        "benign_refusal_rate",
        "borderline_refusal_rate",
        "quality",
        "benign_quality",
        "perplexity",
        "benign_kl",
    ]
    assert len(settings.settings([0.001])) == 1 + 2 * 4


def test_every_method_has_its_twin_or_none_or_those_that_are_named() -> None:
    assert SweepSettings(methods=("caa", "scale")).controls == ("caa", "scale")
    assert SweepSettings(methods=("caa",), controls=True).controls == ("caa",)  # type: ignore[arg-type]
    assert SweepSettings(controls=False).controls == ()  # type: ignore[arg-type]
    assert SweepSettings(controls=("caa", "scale")).controls == ("scale", "caa")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"controls": ("magic",)}, "twin of 'magic' is requested"),
        ({"methods": ()}, "at least one method"),
        ({"measures": ("magic",)}, "There is no measure"),
        ({"measures": ("knowledge",)}, "knowledge prompts: add them"),
        ({"strengths": (200,)}, "between −100 and 100"),
        ({"questions": 0}, "The sweep's setting questions is invalid"),
        ({"rows_per_batch": 1}, "at least two rows"),
        ({"measures": (BenignRefusalRate(),), "benign": None}, "benign prompts: add them"),
        ({"measures": (RefusalRate(), RefusalRate())}, "each measure only once"),
        ({"strengths": ("much",)}, "The sweep's setting strengths.0 is invalid"),
        ({"speed": 3}, "The sweep's setting speed is invalid"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_sentence(changes: dict[str, object], said: str) -> None:
    with pytest.raises(CnaError, match=said):
        SweepSettings(**changes)  # type: ignore[arg-type]


def test_measures_are_kept_as_they_are() -> None:
    measures = (BenignRefusalRate(), Quality(), "perplexity")
    assert SweepSettings(prompts=ONE, benign=ONE, measures=measures).measures == measures
