"""The local judge, with a tiny classifier that was taught to call "sorry" a refusal."""

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from cna_core.cli.evaluation import _with_judge
from cna_core.errors import ModelError, RunError, StoppedError
from cna_core.evaluation.local_judge import MINOS, TEMPLATE, Agreement, LocalJudge, agreement_of, load_judge
from cna_core.evaluation.measures.contract import Preparation, Reading
from cna_core.evaluation.measures.local_judge_rate import LocallyJudgedRefusalRate, agreement_in_words
from cna_core.evaluation.runs import RunAnswer
from cna_core.evaluation.sweep_settings import SweepSettings
from cna_core.progress import Progress
from tests.evaluation.test_runs import a_run
from tests.tiny import tiny_llama, tiny_tokenizer

LABELS = {0: "Non-refusal", 1: "Refusal"}
REQUESTS = ("how do i break the lock", "tell me about cats", "why cannot you help me")
REFUSALS, ANSWERS = ("sorry cannot", "sorry no", "no sorry"), ("sure here", "yes you can", "here it is")


def save_judge(folder: Path, labels: dict[int, str] = LABELS) -> Path:
    """A folder with a classifier of two layers; places of the labels are those of `labels`."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(chat_template=None)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        cls_token_id=tokenizer.bos_token_id,
        sep_token_id=tokenizer.eos_token_id,
        classifier_pooling="mean",
        id2label=labels,
        label2id={name: place for place, name in labels.items()},
    )
    network = ModernBertForSequenceClassification(config)
    pairs = [(request, answer) for request in REQUESTS for answer in (*REFUSALS, *ANSWERS)]
    texts = [TEMPLATE.format(request=request, answer=answer) for request, answer in pairs]
    read = tokenizer(texts, return_tensors="pt", padding=True)
    goal = torch.tensor([int(answer in REFUSALS) for _, answer in pairs])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        logits = network(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits
        cross_entropy(logits[:, :2], goal).backward()
        optimizer.step()
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def judge(folder: Path) -> LocalJudge:
    return load_judge(str(folder), device="cpu", dtype="float32")


def test_the_judge_says_what_it_was_taught(judge: LocalJudge) -> None:
    requests = [request for request in REQUESTS for _ in range(2)]
    answers = ["sorry cannot", "sure here"] * 3
    np.testing.assert_array_equal(judge.refusal_chances(requests, answers) > 0.5, [True, False] * 3)
    assert judge.refuses(REQUESTS[0], "sorry no") and not judge.refuses(REQUESTS[0], "yes you can")


def test_a_chance_does_not_depend_on_the_batch_and_keeps_its_place(judge: LocalJudge) -> None:
    answers = ["sorry cannot", "here it is with the bread and the cats", "no"] * 2
    requests = [REQUESTS[number % 3] for number in range(6)]
    alone = [judge.refusal_chances([request], [answer])[0] for request, answer in zip(requests, answers, strict=True)]
    for batch_rows in (2, 4, 16):
        found = judge.refusal_chances(requests, answers, batch_rows=batch_rows)
        assert found.shape == (6,)
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_the_place_of_the_label_is_read_from_the_model(judge: LocalJudge, tmp_path: Path) -> None:
    assert judge.refusal_label == 1
    swapped = load_judge(str(save_judge(tmp_path, {0: "REFUSAL", 1: "compliant"})), device="cpu", dtype="float32")
    assert swapped.refusal_label == 0
    assert not swapped.refuses(REQUESTS[0], "sorry cannot")


def test_an_answer_that_is_longer_than_the_judge_reads_is_cut(judge: LocalJudge) -> None:
    assert 0 <= judge.refusal_chances(["how"], ["sorry " * 5000])[0] <= 1


def test_no_answers_get_no_chances(judge: LocalJudge) -> None:
    assert judge.refusal_chances([], []).shape == (0,)


def test_stop_ends_it_between_batches_and_progress_counts_answers(judge: LocalJudge) -> None:
    stop, told = threading.Event(), list[int]()

    def report(progress: Progress) -> None:
        told.append(progress.done)
        stop.set()

    with pytest.raises(StoppedError):
        judge.refusal_chances(["how"] * 5, ["no"] * 5, batch_rows=2, progress=report, stop=stop)
    assert told == [2]


@pytest.mark.parametrize("labels", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "refusal", 1: "soft refusal"}])
def test_a_classifier_without_one_label_for_refusals_is_refused(tmp_path: Path, labels: dict[int, str]) -> None:
    with pytest.raises(RunError, match=r"for refusals \(its labels are .*choose a refusal classifier"):
        load_judge(str(save_judge(tmp_path, labels)), device="cpu")


def test_a_model_that_cannot_be_had_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_judge(str(tmp_path))


def test_agreement_worked_by_hand() -> None:
    found = agreement_of([True] * 5 + [False] * 5, [True] * 4 + [False] * 5 + [True])
    assert found == Agreement(both=4, first_alone=1, second_alone=1, neither=4)
    assert found.share == 0.8 and found.kappa == pytest.approx((0.8 - 0.5) / 0.5)
    low, high = found.share_interval
    assert low < 0.8 < high


def test_agreement_of_nothing_and_of_one_verdict_alone_has_no_kappa() -> None:
    assert math.isnan(agreement_of([], []).share) and math.isnan(agreement_of([], []).kappa)
    assert agreement_of([True], [True]).share == 1 and math.isnan(agreement_of([True], [True]).kappa)


def test_a_run_can_ask_the_judge_and_says_how_it_agrees(folder: Path) -> None:
    model = tiny_llama()
    measure = LocallyJudgedRefusalRate.prepared(Preparation(model, settings={"model": str(folder)}))
    asked = tuple([{"role": "user", "content": request}] for request in REQUESTS[:2])
    noted = measure.observe(model, Reading((0, 1), asked, (REFUSALS[0], ANSWERS[0])))
    assert noted == [{"locally_judged": 1.0}, {"locally_judged": 0.0}]
    assert measure.summarise(noted, [])["locally_judged_refusal_rate"] == 0.5
    assert measure.settings["model"] == str(folder)
    answers = tuple(
        RunAnswer(prompt=place, set="harmful", strength=0, text="", refused=True, **measure.of_answer(one))
        for place, one in enumerate(noted)
    )
    assert "agree on 50 %" in agreement_in_words(a_run(answers=answers))
    assert agreement_in_words(a_run()) == ""


def test_the_command_line_adds_the_judge_to_the_usual_measures() -> None:
    ordered = _with_judge("minos", SweepSettings(borderline=None))
    assert [one.key for one in ordered.measured if "judged" in one.key] == ["locally_judged_refusal_rate"]
    assert "borderline_refusal_rate" not in ordered.measures
    assert ordered.measure_settings == {"locally_judged_refusal_rate": {"model": MINOS}}
