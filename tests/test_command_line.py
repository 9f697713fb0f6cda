"""The command line as other programs use it: its output, its files, its exit codes."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cna_core.cli import circuits, evaluation
from cna_core.evaluation import effects
from cna_core.evaluation.gate_meter import RefusalOpenings
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import PromptSet
from tests.by_hand import activations_one_by_one, top_neurons

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cna_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500, check=False)


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("models",),
        ("fetch",),
        ("attribute",),
        ("explain",),
        ("how-few",),
        ("generate",),
        ("evaluate",),
        ("verify",),
        ("compare",),
        ("table",),
    ],
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_further_circuits_are_called_by_their_files_and_numbered_where_these_have_one_name() -> None:
    files = [Path(name) for name in ("delta.json", "effect.json", "early/wide.json", "late/wide.json")]
    assert evaluation._other_names(files) == ["effect", "wide (3)", "wide (4)"]
    assert evaluation._other_names(files[:1]) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("attribute", "smolm2-135m-instruct"), "smollm2-135m-instruct"),
        (("attribute", "smollm2-135m-instruct", "--positive", "nowhere.txt"), "nowhere.txt"),
        (("attribute", "smollm2-135m-instruct", "--top-k", "3", "--fraction", "0.1"), "--top-k"),
        (("attribute", "smollm2-135m-instruct", "--score", "vibes"), "effect-size"),
        (("attribute", "smollm2-135m-instruct", "--layers", "9"), "first-two-thirds"),
        (("explain", "smollm2-135m-instruct", "--prompt", "Hello", "--layers", "9"), "first-two-thirds"),
        (("explain", "smollm2-135m-instruct"), "--prompt"),
        (("generate", "smollm2-135m-instruct", "--circuit", "nowhere.json", "--prompt", "Hello"), "nowhere.json"),
        (("verify", "nowhere.json"), "nowhere.json"),
        (("verify", "nowhere.json", "--checks", "vibes"), "no check called 'vibes'"),
        (("compare", "nowhere.json", "nowhere.json"), "nowhere.json"),
        (("table", "nowhere.json"), "nowhere.json"),
        (("fetch",), "MODEL"),
    ],
)
def test_bad_input_is_one_sentence_on_stderr_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_models_lists_the_catalog() -> None:
    done = run("models")
    assert "qwen2.5-coder-0.5b-instruct" in done.stdout
    assert "24 × 4864" in done.stdout


@pytest.fixture(scope="module")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ten prompts of each built-in discovery set, as a user's own files."""
    folder = tmp_path_factory.mktemp("prompts")
    files = folder / "positive.txt", folder / "negative.txt"
    for file, name in zip(files, ("harmful", "benign"), strict=True):
        file.write_text("\n".join(PromptSet.builtin(name).prompts[:10]), encoding="utf-8")
    return files


def found_by_command(
    model: str, files: tuple[Path, Path], count: int, skip_layers: int, out: Path
) -> dict[tuple[int, int], float]:
    options = [
        "--top-k",
        count,
        "--skip-layers",
        skip_layers,
        "--no-universal",
        "--dtype",
        "float32",
        "--device",
        "cpu",
    ]
    done = run("attribute", model, "--positive", files[0], "--negative", files[1], *map(str, options), "--out", out)
    assert done.returncode == 0, done.stderr
    return {(entry["layer"], entry["neuron"]): entry["delta"] for entry in json.loads(out.read_text())["neurons"]}


def found_by_hand(
    model: LoadedModel, files: tuple[Path, Path], count: int, skip_layers: int
) -> dict[tuple[int, int], float]:
    positive, negative = (file.read_text(encoding="utf-8").splitlines() for file in files)
    rows = activations_one_by_one(model.network, model.tokenizer, [*positive, *negative])
    delta = rows[: len(positive)].mean(0) - rows[len(positive) :].mean(0)
    return top_neurons(delta, model.layout.layers, count, skip_layers)


@pytest.mark.small_model
def test_attribute_finds_the_46_neurons_of_the_definition_on_the_small_model(
    small_model: LoadedModel, prompt_files: tuple[Path, Path], tmp_path: Path
) -> None:
    found = found_by_command("smollm2-135m-instruct", prompt_files, 46, 2, tmp_path / "c.json")
    expected = found_by_hand(small_model, prompt_files, 46, 2)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.default_model
def test_attribute_finds_the_117_neurons_of_the_definition_on_the_default_model(
    prompt_files: tuple[Path, Path], tmp_path: Path
) -> None:
    from cna_core.models.load import load_model

    found = found_by_command("qwen2.5-coder-0.5b-instruct", prompt_files, 117, 2, tmp_path / "c.json")
    model = load_model("qwen2.5-coder-0.5b-instruct", device="cpu", dtype="float32")
    expected = found_by_hand(model, prompt_files, 117, 2)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.small_model
def test_what_acts_on_refusal_is_found_on_the_small_model(prompt_files: tuple[Path, Path], tmp_path: Path) -> None:
    harmful, positive, out = PromptSet.builtin("harmful").prompts, tmp_path / "positive.txt", tmp_path / "c.json"
    positive.write_text("\n".join(harmful[place] for place in (7, 20, 38, 1, 2)), encoding="utf-8")  # it refuses three
    files = ["--positive", positive, "--negative", prompt_files[1]]
    options = ["--score", "attribution-patching", "--top-k", "12", "--device", "cpu", "--dtype", "float32"]
    done = run("attribute", "smollm2-135m-instruct", *files, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Measured 3 of 5 positive prompts: those that are refused" in done.stderr
    content = json.loads(out.read_text())
    effects = [entry["effect"] for entry in content["neurons"]]
    assert effects == sorted(effects) and effects[-1] < 0 and len(effects) == 12
    assert max(entry["layer"] for entry in content["neurons"]) < 20  # of 30 layers
    assert all(entry["delta"] is not None for entry in content["neurons"])
    assert content["settings"]["score"] == "attribution-patching" and content["settings"]["effect"]["steps"] == 1


def test_explain_names_the_neurons_that_push_either_way(
    tiny_model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = RefusalOpenings(tiny_model.identity, "", np.array([7, 9]), np.array([3.0, 2.0]), np.array([3.0, 2.0]))
    monkeypatch.setattr(circuits, "load", lambda *_, **__: tiny_model)
    monkeypatch.setattr(effects, "calibrate_openings", lambda *_, **__: learnt)
    circuits.explain("tiny", "tell me about cats", system="help me", top=3, out=tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert content["prompt"] == "tell me about cats" and content["openings"] == [7, 9]
    assert len(content["layer_shares"]) == 4 and sum(content["layer_shares"]) == pytest.approx(1, abs=1e-5)
    for side, sign in (("towards_refusal", -1), ("against_refusal", 1)):
        assert len(content[side]) == 3
        assert all(sign * neuron["effect"] > 0 and len(neuron["writes"]) == 5 for neuron in content[side])


@pytest.mark.small_model
def test_generate_answers_at_each_strength(prompt_files: tuple[Path, Path], tmp_path: Path) -> None:
    circuit = tmp_path / "c.json"
    found_by_command("smollm2-135m-instruct", prompt_files, 184, 0, circuit)
    strengths = ["--strength", "0", "--strength", "1", "--strength", "0"]
    done = run(
        "generate", "smollm2-135m-instruct", "--circuit", circuit, "--prompt", "Name three colours.", *strengths,
        "--max-new-tokens", "12", "--json", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["answers"]
    assert [answer["multiplier"] for answer in answers] == [1, 0, 1]
    assert answers[0]["text"] == answers[2]["text"]
    assert answers[0]["text"] != answers[1]["text"]


def test_the_app_tells_of_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("app", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
    assert "Traceback" not in done.stderr
