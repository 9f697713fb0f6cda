"""A file of every kind, cut off at ten places and with flipped bytes: one sentence, or the result made again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pages.common.own_prompts as own_prompts
from cna_core.circuits import library
from cna_core.circuits.circuit import Circuit
from cna_core.errors import CnaError
from cna_core.evaluation import first_setting, fitting, how_few, verify
from cna_core.evaluation.first_words import first_words
from cna_core.evaluation.gate_meter import calibrate_openings
from cna_core.evaluation.journal import Journal, stored_runs
from cna_core.evaluation.judgements import Review
from cna_core.evaluation.knowledge import read_questions
from cna_core.evaluation.resume import run_so_far
from cna_core.evaluation.runs import Run
from cna_core.evaluation.sweep import resume
from cna_core.evaluation.word_problems import read_problems
from cna_core.models import convert as conversion
from cna_core.models import fetch, precision
from cna_core.models.hub import download_repository
from cna_core.models.load import load_model
from cna_core.paths import cache_folder
from cna_core.prompts import public
from cna_core.prompts.sets import PromptSet
from tests.evaluation.sweeping import CONTRAST, QUESTION, small_circuit, small_sweep
from tests.faults import stages

PLACES = 10


@dataclass(frozen=True)
class Kind:
    """A kind of file: `make` writes it and returns its path; `use` gives what the project makes of it."""

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], object]


def in_cache(kind: str, work: Callable[[], object]) -> Kind:
    """A result of this folder of the cache: the work gives the same again, whatever happened to the file."""

    def make(_folder: Path) -> Path:
        work()
        [file] = [path for path in cache_folder(kind).iterdir() if not path.name.startswith(".")]
        return file

    return Kind(kind, make, lambda _path: work())


def kept(cache: Any, result: object) -> Kind:
    """An entry of a `ResultCache`; it is read, or counts as missing."""

    def make(_folder: Path) -> Path:
        cache.keep(result, "key")
        return cache.path("key")

    return Kind(cache.kind, make, lambda _path: None if cache.find("key") is None else "found")


def written(name: str, content: str, use: Callable[[Path], object]) -> Kind:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return Kind(name, make, use)


def a_pin(folder: Path) -> Path:
    note = cache_folder("pins") / "harmbench.json"
    note.write_text(json.dumps({"revision": "c" * 40, "sha256": "ab" * 32}))
    return note


def a_run_file(folder: Path) -> Path:
    return small_sweep(stages.model(), measures=["refusal_rate"]).save(folder / "run.json")


QUESTIONS = json.dumps(QUESTION.model_dump()) + "\n"
KINDS = [
    in_cache("activations", lambda: stages.capture(Path()).words),
    in_cache("effects", lambda: stages.effect(Path()).words),
    in_cache("first-words", lambda: [opening.pieces for opening in first_words(stages.model(), CONTRAST)]),
    in_cache("hashes", lambda: fetch._remembered_hash(Path(__file__), None, None)),
    in_cache("openings", lambda: calibrate_openings(stages.model(), CONTRAST).tokens.tolist()),
    kept(precision._MEASURED, [1.0, 2.5]),
    kept(how_few._ROWS, np.array([0.25, 0.125])),
    kept(fitting._TRIALS, fitting.TrialResult(np.array([0.5, 0.25]), np.array([1.0, 2.0]))),
    kept(verify._ROWS, []),
    kept(first_setting._CACHE, first_setting.FirstSetting(0.01, 1.0, 0.2, 0.6, 0.1, 4, 3, ("one",), ("two",))),
    Kind("pin of a public set", a_pin, lambda _: public._pin_of(public.public_set("harmbench")).sha256),
    Kind(
        "saved circuit",
        lambda _: library.save_circuit(small_circuit(stages.model()), "mine"),
        lambda _: library.load_circuit("mine").sha256,
    ),
    Kind(
        "circuit file",
        lambda folder: small_circuit(stages.model()).save(folder / "circuit.json"),
        lambda path: Circuit.load(path).sha256,
    ),
    Kind("run file", a_run_file, lambda path: Run.load(path).points),
    Kind(
        "own prompts",
        lambda _: cache_folder("prompts") / f"{own_prompts.keep(CONTRAST.positive, CONTRAST.negative)}.json",
        lambda path: own_prompts.contrast(path.stem).sha256,
    ),
    written(
        "prompts.jsonl", '{"prompt": "Name a bird."}\n"Name a tree."\n', lambda path: PromptSet.from_file(path).prompts
    ),
    written(
        "prompts.csv",
        'prompt,category\n"Name a bird, please.",birds\nName a tree.,trees\n',
        lambda path: PromptSet.from_file(path).prompts,
    ),
    written("prompts.txt", "Name a bird.\nName a tree, größer.\n", lambda path: PromptSet.from_file(path).prompts),
    written("questions.jsonl", QUESTIONS, read_questions),
    written("problems.jsonl", '{"question": "What is 1 + 1?", "answer": "2"}\n', read_problems),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def damaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kind of file in a cache folder of its own, with what its use gives while it is whole."""
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CNA_HOME", str(folder / "cache"))
        kind = request.param
        path = kind.make(folder)
        yield kind, folder / "cache", path, path.read_bytes(), kind.use(path)


def outcome(kind: Kind, path: Path) -> object:
    """What its use gives, or the sentence that says why it gives nothing. Anything else is a bug."""
    try:
        return kind.use(path)
    except CnaError as error:
        assert len(str(error)) > 20 and "\n" not in str(error)
        return error


def test_a_file_cut_off_at_ten_places_is_made_again_or_said_to_be_damaged(
    damaged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, home, path, whole, value = damaged
    monkeypatch.setenv("CNA_HOME", str(home))
    for length in sorted({round(place * (len(whole) - 2) / (PLACES - 1)) for place in range(PLACES)}):
        path.write_bytes(whole[:length])
        found = outcome(kind, path)
        if kind.name in TEXTS_WITHOUT_AN_END:
            continue  # less is read, as of a file that somebody shortened
        assert isinstance(found, CnaError) or found in (value, None), f"cut off after {length} bytes: {found}"
    path.write_bytes(whole)
    assert kind.use(path) == value


TEXTS_WITHOUT_AN_END = ("prompts.txt", "prompts.csv", "prompts.jsonl", "questions.jsonl")
"""Their lines stand alone, so a file that ends early is a shorter file."""


def test_flipped_bytes_never_end_in_anything_but_a_sentence(damaged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, home, path, whole, value = damaged
    monkeypatch.setenv("CNA_HOME", str(home))
    random = np.random.default_rng(len(whole))
    for place in random.integers(0, len(whole), 2 * PLACES).tolist():
        flipped = bytearray(whole)
        flipped[place] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(flipped))
        found = outcome(kind, path)
        if kind.name in WITH_CHECKSUM:
            assert isinstance(found, CnaError) or found in (value, None), f"byte {place} flipped: {found}"


WITH_CHECKSUM = ("activations", "effects", "first-words")
"""Kinds that notice every flipped byte. Text has no checksum: another digit is another number."""


# --- A run's folder, whose files stand for each other -----------------------------------------------------------------


@pytest.fixture(scope="module")
def a_finished_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("run") / "cache"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CNA_HOME", str(home))
        run = small_sweep(stages.model())
        [stored] = stored_runs()
        Journal(stored.identity).keep_review(Review(seed=3).judged(0, "refused"))
        yield home, stored.identity, run


@pytest.mark.parametrize(
    "name", ["about.json", "circuit.json", "inputs.json", "journal-0.jsonl", "run.json", "review.json"]
)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_a_runs_damaged_file_costs_at_most_what_stood_in_it(
    name: str, finished: bool, a_finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, identity, run = a_finished_run
    shutil.copytree(home, tmp_path / "cache")
    monkeypatch.setenv("CNA_HOME", str(tmp_path / "cache"))
    folder = Journal(identity).folder
    if not finished:
        (folder / "run.json").unlink()
    if not (folder / name).exists():
        pytest.skip("an unfinished run has no such file")
    whole = (folder / name).read_bytes()
    random = np.random.default_rng(1)
    damages = [whole[: round(place * (len(whole) - 1) / (PLACES - 1))] for place in range(PLACES)]
    for place in random.integers(0, len(whole), 2 * PLACES).tolist():
        damages.append(whole[:place] + bytes([whole[place] ^ 1 << int(random.integers(0, 8))]) + whole[place + 1 :])
    for damage in damages:
        (folder / name).write_bytes(damage)
        listed = stored_runs()
        so_far = outcome(Kind(name, lambda path: path, lambda _: run_so_far(identity)), folder)
        assert isinstance(so_far, Run | CnaError)
        if finished and name != "run.json":
            assert len(listed) == 1 and isinstance(so_far, Run) and so_far.answers == run.answers
    (folder / name).write_bytes(whole[: len(whole) // 2])
    again = small_sweep(stages.model())
    assert again.answers == run.answers and again.finished


def test_a_run_whose_inputs_are_damaged_says_so_when_it_is_resumed(
    a_finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, identity, _ = a_finished_run
    shutil.copytree(home, tmp_path / "cache")
    monkeypatch.setenv("CNA_HOME", str(tmp_path / "cache"))
    inputs = Journal(identity).folder / "inputs.json"
    for content in (
        "{}",
        "[]",
        '{"contrast": 1, "knowledge": [], "others": 3}',
        '{"knowledge": [{"subject": 1}]}',
        "null",
    ):
        inputs.write_text(content)
        with pytest.raises(CnaError, match="cannot be resumed"):
            resume(stages.model(), identity)


# --- Models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_model_folders_damaged_file_is_said_to_be_damaged(name: str, material: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(material / "tiny", folder)
    whole = (folder / name).read_bytes()
    for place in range(PLACES):
        (folder / name).write_bytes(whole[: round(place * (len(whole) - 2) / (PLACES - 1))])
        loaded = outcome(Kind(name, lambda path: path, lambda path: load_model(str(path), device="cpu")), folder)
        assert isinstance(loaded, CnaError)
    random = np.random.default_rng(2)
    for place in random.integers(0, len(whole), PLACES).tolist():
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        outcome(Kind(name, lambda path: path, lambda path: load_model(str(path), device="cpu")), folder)


def test_a_converted_folder_notices_every_file_that_was_cut_off_or_changed(material: Path, tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    shutil.copytree(material / "tiny", folder)
    conversion.write_origin(folder, "tiny.gguf", "ab" * 32)
    assert conversion.is_whole(folder)
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        damages = [whole[: place * len(whole) // PLACES] for place in range(PLACES)]
        if file.suffix != ".safetensors":
            damages.append(whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
        for damage in damages:
            file.write_bytes(damage)
            assert not conversion.is_whole(folder) or file.name == conversion.ORIGIN, file.name
        file.unlink()
        assert not conversion.is_whole(folder) or file.name == conversion.ORIGIN
        file.write_bytes(whole)
    assert conversion.is_whole(folder)


def test_a_gguf_that_was_cut_off_or_changed_is_said_to_be_damaged(material: Path, tmp_path: Path) -> None:
    whole = (material / "tiny.gguf").read_bytes()
    for place in range(PLACES):
        (tmp_path / "cut.gguf").write_bytes(whole[: place * len(whole) // PLACES])
        with pytest.raises(CnaError, match=r"damaged or truncated|not a GGUF"):
            conversion.require_gguf(tmp_path / "cut.gguf")
            conversion._read_architecture(tmp_path / "cut.gguf")


def test_a_file_of_the_hubs_cache_that_was_cut_off_is_downloaded_again(
    material: Path, undisturbed: dict[str, stages.Found]
) -> None:
    assert stages.same(stages.download(material), undisturbed["download"])
    weights = (download_repository(stages.HUB_ID).folder / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:100])
    assert stages.same(stages.download(material), undisturbed["download"])
