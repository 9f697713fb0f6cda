"""Each check measures what it says, on a tiny model, and decides as it says."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from cna_core.circuits.attribution import attribute
from cna_core.circuits.circuit import Circuit
from cna_core.circuits.effect_circuit import circuit_with_effects
from cna_core.circuits.multiplier_gradients import log_odds
from cna_core.decoding.lanes import Lane, first_token_logits
from cna_core.errors import CircuitError, CnaError, PromptError, RunError, StoppedError
from cna_core.evaluation.checks import bench as benches
from cna_core.evaluation.checks import transfer
from cna_core.evaluation.checks.bench import Answer, Bench, Way
from cna_core.evaluation.checks.contract import Check, Row
from cna_core.evaluation.checks.estimate_and_truth import EstimateAndTruth, growing, over_the_range, rank_correlation
from cna_core.evaluation.checks.first_person import FirstPerson, Task, first_person_tasks
from cna_core.evaluation.checks.forced_opening import ForcedOpening, commonest_opening
from cna_core.evaluation.checks.harm_done import HarmDone
from cna_core.evaluation.checks.late_refusal import LateRefusal
from cna_core.evaluation.checks.null_circuits import NullCircuits, matched, output_norms
from cna_core.evaluation.checks.registry import CHECKS, checks_named
from cna_core.evaluation.checks.stability import Stability
from cna_core.evaluation.checks.swapped_source import SwappedSource
from cna_core.evaluation.checks.token_ban import TokenBan
from cna_core.evaluation.checks.transfer import Transfer
from cna_core.evaluation.verify import Verification, known_checks, markdown_rows, verify
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import PromptSet
from tests.circuits.samples import circuit_of
from tests.evaluation.checks.benches import BENIGN, BORDERLINE, CONTRAST, HARMFUL, SETTINGS, bench_of, refusing
from tests.evaluation.sweeping import small_circuit, small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture(autouse=True)
def begun(model: LoadedModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return refusing(model, monkeypatch)


class Told(Bench):
    """A bench whose verdicts on answers are told: by the way's key, for each prompt."""

    told: dict[tuple[object, ...], list[bool]]

    def refused(self, prompts, way=Way()):  # type: ignore[no-untyped-def]  # noqa: B008
        return np.array(self.told[way.key])

    opening_refused = refused


def told(model: LoadedModel, *verdicts: tuple[Way, list[bool]]) -> Told:
    many = tuple(f"how do i break {number}" for number in range(len(verdicts[0][1])))
    bench = Told(
        model, small_circuit(model), contrast=CONTRAST, harmful=HARMFUL, benign=BENIGN,
        borderline=BORDERLINE, settings=SETTINGS,
    )  # fmt: skip
    bench.harmful, bench.told = many, {way.key: found for way, found in verdicts}
    return bench


def only(check: Check, bench: Bench) -> Row:
    (row,) = check.run(bench)
    return row


@pytest.mark.parametrize(("banned", "passed"), [([True] * 20, True), ([True] + [False] * 19, False)])
def test_ablation_must_beat_the_token_ban(model: LoadedModel, banned: list[bool], passed: bool) -> None:
    circuit = small_circuit(model)
    ban = Way(not_first=bench_of(model).opening_tokens)
    row = only(TokenBan(), told(model, (Way(circuit), [False] * 20), (ban, banned)))
    assert row.passed is passed and row.value is not None and row.value.value == 0
    assert row.control is not None and row.control.value == pytest.approx(np.mean(banned))
    assert row.change is not None and row.change.value == pytest.approx(-np.mean(banned))


def test_a_banned_token_is_never_the_first(model: LoadedModel) -> None:
    bench = bench_of(model)
    prompts = CONTRAST.positive.prompts
    answers = bench.answers(prompts, Way(not_first=bench.opening_tokens))
    assert all(answer.token_ids[0] not in bench.opening_tokens for answer in answers if answer.token_ids)
    free = bench.answers(prompts)
    assert any(answer.token_ids[0] in bench.opening_tokens for answer in free)


@pytest.mark.parametrize(("ablated", "passed"), [([False] * 20, True), ([True] * 19 + [False], False)])
def test_ablation_must_act_behind_a_forced_opening(model: LoadedModel, ablated: list[bool], passed: bool) -> None:
    circuit, token = small_circuit(model), commonest_opening(bench_of(model))
    row = only(ForcedOpening(), told(model, (Way(circuit, (token,)), ablated), (Way(begun=(token,)), [True] * 20)))
    assert row.passed is passed
    assert row.details["begun"] == bench_of(model).text_of([token]).strip()


def test_the_forced_opening_is_judged_with_the_rest_of_the_answer(model: LoadedModel, begun: str) -> None:
    bench = bench_of(model)
    token = commonest_opening(bench)
    assert bench.text_of([token]) == begun
    assert bench.opening_refused(bench.harmful, Way(begun=(token,))).all()


def test_first_person_requests_are_many_and_answered_with_i() -> None:
    tasks = first_person_tasks()
    assert len(tasks) >= 30 and len({task.prompt for task in tasks}) == len(tasks)
    assert all(answer.split()[0] in ("I", "I'm") and task.is_right(answer) for task in tasks for answer in task.answers)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("I am Anna.", True), ("“I'm Anna!”", True), ("i am anna\nand more", True), ("She is Anna", False), ("", False)],
)
def test_an_answer_is_right_whatever_its_case_and_short_forms(answer: str, right: bool) -> None:
    assert Task("Translate", ("I am Anna",)).is_right(answer) is right
    assert not Task("Numeral", ("I",)).is_right("It is I")


@pytest.mark.parametrize(("after", "passed"), [("I", True), ("It", False)])
def test_first_person_answers_must_stay_right(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, after: str, passed: bool
) -> None:
    tasks = tuple(Task(f"Numeral {number}", ("I",)) for number in range(30))
    monkeypatch.setattr("cna_core.evaluation.checks.first_person.first_person_tasks", lambda: tasks)
    bench = bench_of(model)
    said = {Way().key: "I", Way(bench.circuit).key: after}
    monkeypatch.setattr(
        bench, "answers", lambda prompts, way, _tokens: [Answer((said[way.key],), (1,)) for _ in prompts]
    )
    row = only(FirstPerson(), bench)
    assert row.passed is passed and row.control is not None and row.control.value == 1
    assert len(row.details["lost"]) == (0 if passed else 30)


def test_late_refusals_are_told_from_openings(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = small_circuit(model)
    bench = told(model, (Way(), [True] * 20), (Way(circuit), [False] * 18 + [True] * 2))
    monkeypatch.setattr(bench, "opening_refused", lambda _prompts, _way: np.array([False] * 19 + [True]))
    row = only(LateRefusal(), bench)
    assert row.passed is True and row.details["late"] == 1


def test_swapped_sources_are_of_the_same_size_and_only_the_aimed_one_decides(model: LoadedModel) -> None:
    bench = bench_of(model, attribute(bench_of(model).effects, top_k=5))
    rows = SwappedSource().run(bench)
    assert [row.passed is None for row in rows] == [True, False]
    assert "benign prompts" in rows[0].control_words and "benign first token" in rows[1].control_words
    assert all(0 <= row.details["shared"] <= 5 for row in rows)
    assert all(row.value == rows[0].value for row in rows)


def test_null_circuits_lie_in_the_same_layers_and_are_others(model: LoadedModel) -> None:
    circuit = attribute(bench_of(model).effects, top_k=8)
    bench = bench_of(model, circuit)
    rows = NullCircuits().run(bench)
    assert [len(row.details["draws"]) for row in rows] == [3, 3, 1]
    assert all(row.unit == "chance" and row.passed is not None for row in rows)
    for draw in (*NullCircuits._that_write_as_much(bench), *NullCircuits._reversed(bench)):
        assert np.array_equal(draw.layer_counts, circuit.layer_counts)
        assert not len(np.intersect1d(draw.flat, circuit.flat)) and len(set(draw.flat.tolist())) == 8
    chances = bench.openings.chance(first_token_logits(model, [Lane(p) for p in bench.few_harmful], None))
    assert rows[0].details["unchanged"] == pytest.approx(chances.mean(), abs=1e-6)


def test_matched_neurons_write_about_as_much() -> None:
    circuit = circuit_of([(0, 0), (0, 1), (1, 5)], small_model().identity)
    written = np.tile(np.arange(1, 25, dtype=np.float64) ** 3, 4)
    generator = np.random.default_rng(0)
    draws = np.array([matched(circuit, written, generator) for _ in range(40)])
    assert set(np.unique(draws[:, :2])) <= set(range(2, 24)) and draws[:, 0].mean() < 15
    assert 5 not in draws[:, 2]


def test_output_norms_are_the_columns_of_the_down_projections(model: LoadedModel) -> None:
    norms = output_norms(model)
    assert norms.shape == (model.layout.total,)
    weight = model.network.model.layers[1].mlp.down_proj.weight
    assert norms[model.layout.offsets[1] + 3] == pytest.approx(float(weight[:, 3].detach().norm()), rel=1e-5)


@pytest.mark.parametrize("by_effect", [True, False])
def test_stability_is_that_of_the_score_the_circuit_was_found_by(model: LoadedModel, by_effect: bool) -> None:
    bench = bench_of(model)
    circuit = attribute(bench.effects if by_effect else bench.activations, top_k=5)
    row = only(Stability(), bench_of(model, circuit))
    assert row.passed is None and row.value is not None and 0 <= row.value.low <= row.value.value <= row.value.high <= 1
    assert len(row.details["frequency"]) == 5


def test_transfer_goes_through_public_sets_and_another_system_prompt(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.PromptSet, "public", lambda _name, **_: HARMFUL)
    rows = Transfer().run(bench_of(model))
    assert len(rows) == 3 and all(row.value is not None and row.control is not None for row in rows)


def test_a_set_that_cannot_be_had_decides_nothing(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str, **_: object) -> None:
        raise PromptError(f"{name} cannot be fetched.")

    monkeypatch.setattr(transfer.PromptSet, "public", nowhere)
    rows = Transfer().run(bench_of(model))
    assert [row.passed for row in rows[:2]] == [None, None]
    assert rows[0].verdict == "Not measured: jbb-harmful cannot be fetched."


def test_truth_is_what_single_ablations_change(model: LoadedModel) -> None:
    bench = bench_of(model, attribute(bench_of(model).effects, top_k=6))
    single, groups = EstimateAndTruth().run(bench)
    together = rank_correlation(*(np.array(single.details[name]) for name in ("estimate", "measured")))
    assert single.value is not None and single.value.value == pytest.approx(together.value, abs=0.02)
    neurons = over_the_range(bench.effects.values.mean(0).numpy(), 12)
    assert len(single.details["measured"]) == len(neurons)
    place = len(neurons) // 2
    layers, places = model.layout.locate(neurons[place : place + 1])
    one = circuit_of([(int(layers[0]), int(places[0]))], model.identity)
    lanes = [
        Lane(prompt, strength=strength, circuit=one) for strength in (1.0, 0.0) for prompt in bench.effects.positive
    ]
    ablated, before = log_odds(first_token_logits(model, lanes, None), bench.opening_tokens).chunk(2)
    assert single.details["measured"][place] == pytest.approx(float(ablated.mean() - before.mean()), abs=2e-4)
    assert groups.details["sizes"] == [1, 2, 4, 6]
    assert groups.details["predicted"][0] == pytest.approx(float(np.nanmin(bench.effects.effect)), abs=1e-3)


def test_neurons_are_taken_over_the_whole_range() -> None:
    estimate = np.arange(100, dtype=np.float64)[::-1]
    chosen = over_the_range(estimate, 20)
    assert len(chosen) == 20 and {0, 1, 99, 98} <= set(chosen.tolist())
    assert 40 < np.median(chosen) < 60
    assert len(over_the_range(estimate[:7], 20)) == 7


def test_groups_grow_by_doubling() -> None:
    assert growing(10) == [1, 2, 4, 8, 10] and growing(8) == [1, 2, 4, 8] and growing(1) == [1]


def test_rank_correlation_of_equal_order_is_one() -> None:
    values = np.arange(30, dtype=np.float64)
    found = rank_correlation(values, values**3)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    noise = np.random.default_rng(0).normal(size=(2, 30))
    wide = rank_correlation(*noise)
    assert wide.low < wide.value < wide.high


def test_harm_is_held_against_a_circuit_of_the_other_score_at_equal_refusal(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cna_core.evaluation.checks.harm_done.FRACTIONS", (0.02, 0.1, 0.3, 0.5, 0.9))
    monkeypatch.setattr("cna_core.evaluation.checks.harm_done.letter_tokens", lambda _model: [[7], [8], [9], [10]])
    monkeypatch.setattr("cna_core.evaluation.checks.harm_done.builtin_questions", lambda: ())
    monkeypatch.setattr(HarmDone, "_knowledge", HarmDone._over_refusal)  # the tiny tokenizer has no letters
    effects = bench_of(model).effects
    weak = attribute(effects, top_k=1)
    weak = circuit_with_effects(effects, np.array([np.nanargmax(effects.effect)]), weak.settings)
    bench = bench_of(model, weak)
    other, words = HarmDone._of_equal_refusal(bench)
    assert other.settings.score == "delta" and "circuit found by δ" in words
    own, theirs = bench.chances(bench.few_harmful, [weak, other]).mean(1)
    assert theirs <= own
    rows = HarmDone().run(bench)
    assert [row.unit for row in rows] == ["nats", "perplexity", "share", "share"]
    assert all(row.value is not None and row.control is not None for row in rows)


def test_answers_are_written_once_for_each_way(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(model)
    calls: list[int] = []
    written = bench._written

    def counted(prompts, way, length):  # type: ignore[no-untyped-def]
        calls.append(length)
        return written(prompts, way, length)

    monkeypatch.setattr(bench, "_written", counted)
    long = bench.answers(bench.harmful)
    short = bench.opening_refused(bench.harmful)
    assert calls == [10] and len(short) == 4
    bench.answers(bench.harmful, Way(bench.circuit), 4)
    assert calls == [10, 4]
    assert [len(answer.pieces) <= 10 for answer in long] == [True] * 4
    assert long[0].text(2) == "".join(long[0].pieces[:2])


def test_refusals_behind_the_opening_count_where_answers_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert benches.refuses_anywhere("I'm sorry, but I can't help with that.")
    assert not benches.refuses_anywhere("Sure, here is the recipe.")


# --- all of them ------------------------------------------------------------------------------------------------------


def verified(model: LoadedModel, circuit: Circuit | None = None, **changes: object) -> Verification:
    given = {
        "contrast": CONTRAST, "harmful": HARMFUL, "benign": BENIGN, "borderline": BORDERLINE, "settings": SETTINGS,
        "checks": ("token-ban", "late-refusal", "stability"),
    }  # fmt: skip
    return verify(model, circuit or small_circuit(model), **(given | changes))  # type: ignore[arg-type]


def test_a_check_that_was_done_is_not_done_again_and_is_found_without_the_model(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = verified(model)
    monkeypatch.setattr(TokenBan, "run", None)
    monkeypatch.setattr(LateRefusal, "run", None)
    assert verified(model).rows[:2] == first.rows[:2]
    with pytest.raises(TypeError):
        verified(model, settings=SETTINGS.model_copy(update={"seed": 4}))
    for name, prompts in (("evaluation-harmful", HARMFUL), ("evaluation-benign", BENIGN), ("borderline", BORDERLINE)):
        monkeypatch.setitem(KNOWN_SETS, name, prompts)
    monkeypatch.setattr(PromptSet, "builtin", lambda name: KNOWN_SETS[name])
    known = known_checks(model.identity, small_circuit(model), contrast=CONTRAST, settings=SETTINGS)
    assert known.rows == first.rows


KNOWN_SETS: dict[str, PromptSet] = {}


def test_any_circuit_can_be_verified_and_the_outcome_survives_its_file(model: LoadedModel, tmp_path: Path) -> None:
    told: list[int] = []
    found = verified(model, partial=lambda so_far: told.append(len(so_far.rows)))
    assert told == [1, 2, 3] and [row.check for row in found.rows] == ["token-ban", "late-refusal", "stability"]
    assert Verification.load(found.save(tmp_path / "checks.json")) == found
    assert json.loads((tmp_path / "checks.json").read_text())["format"] == "cna-checks/1"
    assert len(list(markdown_rows(found))) == 5
    assert found.sign_of("stability") == "open"


def test_discovery_prompts_are_left_out(model: LoadedModel) -> None:
    circuit = attribute(bench_of(model).activations, top_k=3)
    with_own = PromptSet("harmful", (*HARMFUL.prompts, CONTRAST.positive.prompts[0]))
    seen: list[tuple[str, ...]] = []

    class Look(Check):
        key, title, question = "look", "Look", "?"

        def run(self, bench: Bench) -> list[Row]:
            seen.append(bench.harmful)
            return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cna_core.evaluation.verify.checks_named", lambda _keys: [Look()])
        verified(model, circuit, harmful=with_own)
    assert CONTRAST.positive.prompts[0] not in seen[0] and len(seen[0]) == 4


def test_a_check_that_cannot_be_carried_out_says_so(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_self: TokenBan, _bench: Bench) -> list[Row]:
        raise CircuitError("it cannot be had.")

    monkeypatch.setattr(TokenBan, "run", cannot)
    found = verified(model, checks=("token-ban",))
    assert found.rows[0].verdict == "Not measured: it cannot be had." and found.sign_of("token-ban") == "open"


def outcome(**signs: bool) -> Verification:
    rows = tuple(
        Row(check=key.replace("_", "-"), quantity="", unit="share", passed=sign, verdict="")
        for key, sign in signs.items()
    )
    return Verification(
        model=small_model().identity, circuit_sha256="", neurons=1, score="delta", settings=SETTINGS, rows=rows
    )


def test_the_claim_waits_for_the_four_checks_that_it_needs() -> None:
    needed = {key.replace("-", "_") for key, check in CHECKS.items() if check.needed}
    assert needed == {"token_ban", "forced_opening", "first_person", "swapped_source"}
    assert outcome(**dict.fromkeys(needed, True)).claim == "the neurons behind refusal"
    for missing in needed:
        rest = dict.fromkeys(needed - {missing}, True)
        assert outcome(**rest).claim == outcome(**rest, **{missing: False}).claim == "neurons that open refusals"


def test_unknown_checks_and_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CnaError, match="no check called 'vibes'"):
        checks_named(("vibes",))
    for text, said in (("{}", "cna-checks/1"), ("no", "not JSON"), ('{"format": "cna-checks/1"}', "damaged")):
        with pytest.raises(RunError, match=said):
            Verification.from_json(text)
    with pytest.raises(RunError, match="cannot be read"):
        Verification.load(tmp_path / "nowhere.json")


def test_verifying_stops(model: LoadedModel) -> None:
    stop = threading.Event()
    kept: list[Verification] = []

    def keep(found: Verification) -> None:
        kept.append(found)
        stop.set()

    with pytest.raises(StoppedError):
        verified(model, partial=keep, stop=stop)
    assert len(kept) == 1 and kept[0].rows[0].check == "token-ban"


def test_a_circuit_of_another_model_is_refused(model: LoadedModel) -> None:
    with pytest.raises(CircuitError, match="belongs to"):
        verified(model, circuit_of([(0, 0)]))


def test_every_check_explains_itself() -> None:
    assert list(CHECKS) == [check.key for check in CHECKS.values()] and len(CHECKS) == 10
    assert all(check.question.endswith("?") and check.title for check in CHECKS.values())
