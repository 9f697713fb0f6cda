import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cna_core.decoding.lanes import Lane, generate
from cna_core.errors import CnaError, RunError, StoppedError
from cna_core.evaluation.journal import Journal, stored_runs
from cna_core.evaluation.measures.benign_kl import BenignDivergence
from cna_core.evaluation.measures.contract import Observation, Reading
from cna_core.evaluation.measures.quality import Quality
from cna_core.evaluation.measures.refusal_rate import RefusalRate
from cna_core.evaluation.pace import Pace, estimate
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.setting import Treatment
from cna_core.evaluation.sweep import evaluate, resume
from cna_core.evaluation.sweep_plan import plan_sweep
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.figures.sweep_curves import curves_of
from cna_core.interventions.plan import steered
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import as_messages, encode
from cna_core.prompts.sets import PromptSet
from tests.evaluation.sweeping import BENIGN, HARMFUL, small_circuit, small_model, small_sweep

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


def without_time(run: Run) -> Run:
    return run.model_copy(update={"created": ""})


def test_several_circuits_share_one_run_its_baseline_and_its_chart(model: LoadedModel, empty_cache: Path) -> None:
    """A further circuit's curves are those that a run of it alone has; a stopped run goes on with all of them."""
    other = small_circuit(model, size=5)
    stop = threading.Event()
    with pytest.raises(StoppedError):
        small_sweep(model, others={"five": other}, partial=lambda _: stop.set(), stop=stop)
    (stored,) = stored_runs()
    run = resume(model, stored.identity)
    assert run == small_sweep(model, others={"five": other}) and run.settings.others == {"five": other.sha256}
    baselines = [answer for answer in run.answers if answer.strength == 0]
    assert len(baselines) == 3 + 2 + 1
    mine = run.series(Treatment("scale", circuit="five"))
    alone = small_sweep(model, circuit=other).series(Treatment("scale"))
    assert [point.strength for point in mine] == [0, 1, 2]
    assert [point.refusal_rate for point in mine] == [point.refusal_rate for point in alone]
    assert run.series(Treatment("random", "scale", "five")) and not run.series(Treatment("caa", circuit="five"))
    curves = {curve.name: curve for curve in curves_of(Run.from_json(run.to_json()), "refusal_rate")}
    assert {"CNA", "CNA, five", "random for CNA, five"} <= set(curves)
    assert curves["CNA"].look.colour != curves["CNA, five"].look.colour


def test_a_sweep_measures_every_curve_and_every_answer(model: LoadedModel, empty_cache: Path) -> None:
    run = small_sweep(model)
    assert run.finished
    assert {(*point.treatment, point.strength) for point in run.points} == {
        (*Treatment(*treatment), strength)
        for treatment in (("scale", None), ("random", "scale"), ("caa", None), ("random", "caa"))
        for strength in (0, 1, 2)
    }
    settings = 1 + 4 * 2
    assert len(run.answers) == settings * (3 + 2 + 1)
    assert all(point.prompts == 3 for point in run.points)
    for point in run.points:
        for measure in (
            "refusal_rate",
            "benign_refusal_rate",
            "borderline_refusal_rate",
            "quality",
            "perplexity",
            "benign_kl",
        ):
            estimate = point.estimate(measure)
            assert estimate is not None
            assert estimate.low <= estimate.value <= estimate.high
        assert point.estimate("knowledge") is None


def test_the_baseline_is_the_same_point_on_every_curve_and_has_no_divergence(
    model: LoadedModel, empty_cache: Path
) -> None:
    baselines = [point for point in small_sweep(model).points if point.strength == 0]
    assert len(baselines) == 4
    assert len({point.model_dump_json(exclude={"method", "twin_of", "fraction"}) for point in baselines}) == 1
    assert baselines[0].estimate("benign_kl") == (0, 0, 0)


def test_answers_are_those_of_each_setting_alone(model: LoadedModel, empty_cache: Path) -> None:
    run = small_sweep(model, methods=("scale",), controls=False)
    answers = [answer for answer in run.answers if answer.prompt_set == "harmful"]
    assert len({answer.text for answer in answers}) > 1
    for answer in answers:
        lane = Lane(as_messages(HARMFUL.prompts[answer.prompt]), strength=answer.strength)
        alone = "".join(step.text for step in generate(model, [lane], small_circuit(model), max_new_tokens=6))
        assert answer.text == alone


def test_divergence_worked_by_hand(model: LoadedModel, empty_cache: Path) -> None:
    run = small_sweep(model, [BenignDivergence()], methods=("scale",), controls=False, borderline=None)
    divergences = []
    for prompt in BENIGN:
        tokens = torch.tensor([encode(model, prompt)] * 2)
        with torch.inference_mode(), steered(model, small_circuit(model), [1.0, 0.0]):
            before, after = model.network(tokens).logits[:, -1].double().log_softmax(-1)
        divergences.append(float((before.exp() * (before - after)).sum()))
    [point] = [point for point in run.points if point.strength == 1]
    found = point.estimate("benign_kl")
    assert found is not None
    assert found.value == pytest.approx(np.mean(divergences), rel=1e-4)
    assert found.value > 0


def test_the_same_run_again_is_read_from_disk(model: LoadedModel, empty_cache: Path) -> None:
    first = small_sweep(model)
    journal = Journal(stored_runs()[0].identity)
    before = (journal.folder / "journal-0.jsonl").read_bytes()
    assert small_sweep(model) == first
    assert (journal.folder / "journal-0.jsonl").read_bytes() == before
    assert len(stored_runs()) == 1


def test_a_stopped_run_keeps_what_is_done_and_goes_on_there(model: LoadedModel, empty_cache: Path) -> None:
    whole = small_sweep(model, fresh=True)
    stop = threading.Event()
    seen: list[Run] = []

    def stop_after_two(run: Run) -> None:
        seen.append(run)
        if len(seen) == 2:
            stop.set()

    with pytest.raises(StoppedError):
        small_sweep(model, fresh=True, partial=stop_after_two, stop=stop)
    assert not seen[-1].finished
    assert 0 < len(seen[-1].answers) < len(whole.answers)
    assert stored_runs()[0].done == 2
    again: list[Run] = []
    resumed = small_sweep(model, partial=again.append)
    assert without_time(resumed) == without_time(whole)
    assert len(again) == stored_runs()[0].batches - 2


def test_a_killed_process_loses_one_batch_and_the_resumed_run_equals_an_uninterrupted_one(
    empty_cache: Path, tmp_path: Path
) -> None:
    def child(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.evaluation.sweeping", *arguments]
        return subprocess.Popen(
            command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    with child("wait") as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "in the middle\n"
        waiting.kill()
    [killed] = stored_runs()
    assert (killed.done, killed.finished) == (2, False)

    with child(str(tmp_path / "resumed.json")) as resumed:
        _, said = resumed.communicate()
        assert resumed.returncode == 0, said
    [run] = stored_runs()
    assert run.identity == killed.identity
    assert run.finished
    first_lines = (Journal(run.identity).folder / "journal-0.jsonl").read_text().splitlines()
    assert len(first_lines) == run.batches

    uninterrupted = small_sweep(small_model(), fresh=True)
    assert without_time(Run.load(tmp_path / "resumed.json")) == without_time(uninterrupted)


def test_the_file_is_written_where_it_was_asked_for(model: LoadedModel, empty_cache: Path, tmp_path: Path) -> None:
    run = small_sweep(model, out=tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == run
    assert run.settings.prompts["harmful"].sha256 == HARMFUL.sha256
    assert run.settings.prompts["benign"].texts == BENIGN.prompts


def test_another_seed_is_another_run_with_the_same_circuit_and_another_random_one(
    model: LoadedModel, empty_cache: Path
) -> None:
    first, second = (small_sweep(model, seed=seed, methods=("scale",)) for seed in (0, 1))
    assert len(stored_runs()) == 2

    def texts(run: Run, method: str) -> list[str]:
        return [answer.text for answer in run.answers if answer.method == method]

    assert texts(first, "scale") == texts(second, "scale")
    assert texts(first, "random") != texts(second, "random")


def test_progress_grows_to_the_end(model: LoadedModel, empty_cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    small_sweep(
        model,
        methods=("scale",),
        controls=False,
        progress=lambda told: calls.append((told.done, told.total)),
    )
    shares = [done / total for done, total in calls if total]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


def test_a_sweep_is_estimated_before_it_starts_and_costs_nothing_when_done(
    model: LoadedModel, empty_cache: Path
) -> None:
    arguments = {
        "prompts": HARMFUL,
        "strengths": (0.0, 1.0),
        "methods": ("scale",),
        "controls": (),
        "max_new_tokens": 4,
    }
    plan = plan_sweep(model, small_circuit(model), SweepSettings(**arguments))  # type: ignore[arg-type]
    assert estimate(model, plan) > 0
    evaluate(model, small_circuit(model), **arguments)  # type: ignore[arg-type]
    assert estimate(model, plan) == 0


def test_the_pace_of_a_machine_gives_the_time_of_any_sweep() -> None:
    pace = Pace(reading_seconds=0.001, step_seconds=0.1, rows=10, prompt_tokens=20)
    seconds = pace.seconds(settings=5, written=4, read=2, questions=3, max_new_tokens=8, read_again=4)
    assert seconds == pytest.approx(0.001 * 5 * (20 * (4 + 2 + 6) + 28 * 4) + 0.1 * 8 * 4 * 5 / 10)


def test_a_stored_run_goes_on_by_its_name_alone(model: LoadedModel, empty_cache: Path) -> None:
    whole = small_sweep(model, fresh=True)
    stop = threading.Event()
    with pytest.raises(StoppedError):
        small_sweep(model, fresh=True, partial=lambda run: stop.set(), stop=stop)
    assert without_time(resume(model, stored_runs()[0].identity)) == without_time(whole)


def test_what_is_measured_so_far_can_be_seen_without_a_model(model: LoadedModel, empty_cache: Path) -> None:
    whole = small_sweep(model, fresh=True)
    identity = stored_runs()[0].identity
    assert run_so_far(identity) == whole
    stop = threading.Event()
    seen: list[Run] = []

    def stop_now(run: Run) -> None:
        seen.append(run)
        stop.set()

    with pytest.raises(StoppedError):
        small_sweep(model, fresh=True, partial=stop_now, stop=stop)
    assert without_time(run_so_far(identity)) == without_time(seen[0])


def test_a_run_does_not_go_on_with_another_model(
    model: LoadedModel, empty_cache: Path, tiny_model: LoadedModel
) -> None:
    small_sweep(model)
    other = replace(tiny_model, name="tiny", revision="other")
    with pytest.raises(CnaError, match="belongs to"):
        resume(other, stored_runs()[0].identity)


class Length(Quality):
    """A measure from outside: mean length of the answers."""

    key = "length"

    def observe(self, model: LoadedModel, reading: Reading) -> list[Observation]:
        return [{"quality": float(len(text))} for text in reading.texts]


def test_a_measure_can_be_plugged_in(model: LoadedModel, empty_cache: Path) -> None:
    run = small_sweep(model, [RefusalRate(), Length()], methods=("scale",), controls=False)
    estimate = run.points[0].estimate("length")
    assert estimate is not None
    assert estimate.value > 1
    assert Run.from_json(run.to_json()).to_json() == run.to_json()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"controls": ("magic",)}, "not a control"),
        ({"measures": ["magic"]}, "There is no measure 'magic': choose from refusal_rate"),
        ({"strengths": ()}, "at least one strength"),
        ({"max_new_tokens": 0}, "at least one token"),
        ({"measures": ()}, "at least one measure"),
        ({"measures": [RefusalRate(), RefusalRate()]}, "each measure only once"),
        ({"measures": [BenignDivergence()], "benign": None}, "benign prompts: add them"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(
    model: LoadedModel, empty_cache: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(RunError, match=said):
        small_sweep(model, **changes)  # type: ignore[arg-type]


def test_a_circuit_of_another_model_is_refused(model: LoadedModel, empty_cache: Path, tiny_model: LoadedModel) -> None:
    from cna_core.errors import CircuitError
    from tests.circuits.samples import circuit_of, identity

    with pytest.raises(CircuitError, match="belongs to"):
        evaluate(model, circuit_of([(0, 1)], identity(5, layers=2)), PromptSet("p", ("cats",)))


def test_two_processes_share_the_batches_and_equal_one(empty_cache: Path, tmp_path: Path) -> None:
    """With one thread each, as torchrun starts them: more threads add up in another order, to other last bits."""

    def sweep(*launcher: str, out: str, home: Path) -> Run:
        command = [sys.executable, *launcher, "-m", "tests.evaluation.sweeping", str(tmp_path / out)]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "CNA_HOME": str(home)}
        done = subprocess.run(
            command, cwd=REPOSITORY, env=surroundings, text=True, capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return Run.load(tmp_path / out)

    two = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    shared = sweep(*two, out="shared.json", home=empty_cache)
    folder = Journal(stored_runs()[0].identity).folder
    assert all((folder / f"journal-{process}.jsonl").read_text() for process in (0, 1))
    alone = sweep(out="alone.json", home=tmp_path / "other cache")
    assert without_time(shared) == without_time(alone)
