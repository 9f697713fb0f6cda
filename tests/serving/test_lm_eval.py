"""lm-evaluation-harness against the real server: a task from a local file, by likelihood and by generation."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cna_core.decoding.reading import Prompt
from cna_core.decoding.sampling import Sampler, Sampling
from cna_core.decoding.session import DecodeSession, Request
from cna_core.interventions.plan import steered
from cna_core.interventions.scale import Scale
from cna_core.models.loaded import LoadedModel
from tests.decoding.models import loud_model, spread_circuit
from tests.serving.models import Served, served

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e '.[evaltools]'")
pytest.importorskip("datasets", reason="lm-eval's data sets are not installed: pip install -e '.[evaltools]'")

QUESTIONS = [
    {"question": "how do i bake the bread", "choices": ["here you can", "sorry cannot help"], "answer": 0},
    {"question": "what is a lock", "choices": ["no", "tell me about it"], "answer": 1},
    {"question": "why tell me about cats", "choices": ["yes it is", "sorry no"], "answer": 0},
]
BY_LIKELIHOOD = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
BY_GENERATION = """
task: tiny_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["lock"], max_gen_toks: 10, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loud_model()


@pytest.fixture(scope="module")
def server(model: LoadedModel) -> Iterator[Served]:
    with served(model, {"gate": spread_circuit(model, size=40)}) as running:
        yield running


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> Path:
    """A folder with the two tasks, their questions, and the tokenizer."""
    folder = tmp_path_factory.mktemp("tasks")
    model.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "questions.jsonl").write_text("\n".join(json.dumps(question) for question in QUESTIONS))
    for name, task in (("choice", BY_LIKELIHOOD), ("text", BY_GENERATION)):
        (folder / f"{name}.yaml").write_text(task.format(file=folder / "questions.jsonl"))
    return folder


def evaluated(server: Served, tasks: Path, name: str, task: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the harness got for each question."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tasks / "cache")
    arguments = {
        "model": name,
        "base_url": f"{server.address}/v1/completions",
        "tokenizer": str(tasks / "tokenizer"),
        "tokenizer_backend": "huggingface",
        "num_concurrent": 3,
        "max_length": 200,
    }
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=arguments,
        tasks=[task],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    return sorted(found["samples"][task], key=lambda sample: sample["doc_id"])


@pytest.mark.parametrize(("name", "multiplier"), [("baseline", 1.0), ("gate@1", 0.0)])
def test_likelihoods_are_the_models(
    server: Served, model: LoadedModel, tasks: Path, name: str, multiplier: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sample in evaluated(server, tasks, name, "tiny_choice", monkeypatch):
        found = [float(response[0]) for response in sample["filtered_resps"]]
        question, choices = sample["doc"]["question"], sample["doc"]["choices"]
        expected = [likelihood(model, question, choice, multiplier) for choice in choices]
        assert found == pytest.approx(expected, abs=1e-3)


def likelihood(model: LoadedModel, question: str, choice: str, multiplier: float) -> float:
    """log p(choice | question) in nats, from one plain pass."""
    before, after = (model.tokenizer(text)["input_ids"] for text in (question, choice))
    circuit = spread_circuit(model, size=40)
    with torch.inference_mode(), steered(model, circuit, [multiplier]):
        logprobs = model.network(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
    return float(sum(logprobs[len(before) - 1 + place, token] for place, token in enumerate(after)))


@pytest.mark.parametrize(("name", "strength"), [("baseline", 0.0), ("gate@1", 1.0)])
def test_generated_answers_are_the_librarys(
    server: Served, model: LoadedModel, tasks: Path, name: str, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = evaluated(server, tasks, name, "tiny_text", monkeypatch)
    assert len(samples) == len(QUESTIONS)
    for sample in samples:
        assert sample["resps"][0][0] == written(model, sample["doc"]["question"], strength)


def written(model: LoadedModel, text: str, strength: float) -> str:
    """The greedy continuation of a text."""
    from cna_core.decoding.lanes import end_tokens

    session = DecodeSession(model, end_tokens(model))
    change = Scale(spread_circuit(model, size=40)).change(strength)
    session.add(Request(Prompt(model.tokenizer(text)["input_ids"], change), 10, Sampler(Sampling()), ("lock",)))
    pieces = []
    while session.answers:
        pieces += [step.text for step in session.step()]
    return "".join(pieces)
