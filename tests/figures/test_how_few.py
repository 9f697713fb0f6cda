import math

from cna_core.evaluation.size_curves import Halving, HowFew, HowFewSettings, SizeCurve, halving_in_words
from cna_core.figures.how_few import how_few_neurons
from tests.circuits.samples import identity

EFFECT = SizeCurve(
    key="effect",
    title="effect",
    sizes=(1, 2, 4),
    chances=(((0.8, 0.4, 0.2), (0.6, 0.2, 0.0)),),
    divergences=(((0.0, 0.1, 0.3),),),
)
RANDOM = SizeCurve(
    key="random",
    title="random",
    sizes=(1, 4),
    chances=(((0.8, 0.8), (0.6, 0.6)), ((0.9, 0.7), (0.7, 0.5))),
    divergences=(((0.0, 0.0),), ((0.0, 0.1),)),
)


def found(*curves: SizeCurve) -> HowFew:
    return HowFew(
        model=identity(),
        settings=HowFewSettings(),
        harmful_name="harmful",
        benign_name="benign",
        refused=3,
        baseline=(0.8, 0.8),
        curves=curves,
    )


def test_curves_stand_over_their_sizes_with_bands_and_kl_below() -> None:
    figure = how_few_neurons(found(EFFECT, RANDOM))
    traces = {trace.meta: trace for trace in figure.data}
    assert set(traces) == {f"{key}{part}" for key in ("effect", "random") for part in ("", "/band", "/kl")}
    assert list(traces["effect"].x) == [1, 2, 4] and [round(value, 6) for value in traces["effect"].y] == [
        0.7,
        0.3,
        0.1,
    ]
    assert [round(value, 6) for value in traces["random/band"].y] == [0.8, 0.7, 0.6, 0.7]  # the draws' range
    assert list(traces["effect/kl"].y) == [0.0, 0.1, 0.3] and traces["effect/kl"].yaxis == "y2"
    assert figure.layout.xaxis.type == "log" and figure.layout.xaxis.range[1] > math.log10(4)


def test_a_curve_is_named_with_where_it_halves_refusal_and_a_control_is_not() -> None:
    words = " ".join(str(note.text) for note in how_few_neurons(found(EFFECT, RANDOM)).layout.annotations)
    assert "thirds: 2" in words.replace("<br>", " ") and "random, same layers" in words.replace("<br>", " ")
    assert "half of it 40 %" in words


def test_halving_in_words_counts_whole_neurons_and_says_what_was_not_reached() -> None:
    assert halving_in_words(Halving(value=6.2, low=4.0, high=11.5)) == "7 (4–12)"
    assert halving_in_words(Halving(value=700.0, low=300.0, high=None)) == "700 (300–…)"
    assert halving_in_words(Halving(value=None, low=900.0, high=None)) == "not halved"


def test_before_the_first_prompt_an_empty_frame_is_drawn() -> None:
    empty = EFFECT.model_copy(update={"chances": ((),), "divergences": ((),)})
    assert not how_few_neurons(found(empty).model_copy(update={"baseline": ()})).data
