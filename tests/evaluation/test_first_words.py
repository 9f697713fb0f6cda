"""The model's first words: greedy, kept, shared, and gone on with after a stop."""

import threading
from pathlib import Path

import pytest

from cna_core.decoding.lanes import Lane, generate
from cna_core.errors import StoppedError
from cna_core.evaluation import first_words as module
from cna_core.evaluation.first_words import first_words, read_openings
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.models.loaded import LoadedModel
from cna_core.progress import Progress
from tests.evaluation.sweeping import CONTRAST, small_model


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each decode answered."""
    rows: list[int] = []

    def counting(of: LoadedModel, lanes: list[Lane], *rest: object, **named: object) -> object:
        rows.append(len(lanes))
        return generate(of, lanes, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "generate", counting)
    return rows


def test_first_words_are_the_greedy_answers_in_the_prompts_order(model: LoadedModel) -> None:
    prompts = CONTRAST.prompts
    found = read_openings(model, prompts, tokens=5, rows=2)
    assert sorted(found) == list(range(len(prompts)))
    for place, prompt in enumerate(prompts):
        steps, opening = list(generate(model, [Lane(prompt)], None, max_new_tokens=5)), found[place]
        assert opening.token == steps[0].token_id == opening.likely[0]
        assert opening.words() == "".join(step.text for step in steps)
        assert opening.words(2) == "".join(step.text for step in steps[:2])
        assert opening.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_one_reading_serves_the_meter_and_whoever_asks_again(
    model: LoadedModel, empty_cache: Path, read: list[int]
) -> None:
    heard = first_words(model, CONTRAST)
    calibrate_openings(model, CONTRAST)
    again = first_words(model, CONTRAST)
    assert sum(read) == len(CONTRAST.prompts)
    for one, other in zip(heard, again, strict=True):
        assert (one.token, one.pieces) == (other.token, other.pieces)
        assert (one.likely == other.likely).all() and (one.probabilities == other.probabilities).all()


def test_a_stopped_reading_goes_on_where_it_was(
    model: LoadedModel, empty_cache: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.read_openings, "__kwdefaults__", {**read_openings.__kwdefaults__, "rows": 2})
    stop = threading.Event()

    def stop_after_two(progress: Progress) -> None:
        if progress.done == 2:
            stop.set()

    with pytest.raises(StoppedError):
        first_words(model, CONTRAST, progress=stop_after_two, stop=stop)
    assert read == [2]
    told: list[int] = []
    whole = first_words(model, CONTRAST, progress=lambda progress: told.append(progress.done))
    assert sum(read) == len(CONTRAST.prompts)
    assert told[0] == 2
    fresh = first_words(model, CONTRAST, use_cache=False)
    assert [opening.pieces for opening in whole] == [opening.pieces for opening in fresh]


def test_a_damaged_file_is_read_again(model: LoadedModel, empty_cache: Path, read: list[int]) -> None:
    heard = first_words(model, CONTRAST)
    [file] = (empty_cache / "first-words").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert [opening.pieces for opening in first_words(model, CONTRAST)] == [opening.pieces for opening in heard]
    assert sum(read) == 2 * len(CONTRAST.prompts)
