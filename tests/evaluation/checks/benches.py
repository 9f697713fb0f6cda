"""A bench in a blink: a tiny model whose answers count as refusals where they begin in a certain way."""

import pytest

from cna_core.circuits.circuit import Circuit
from cna_core.evaluation import effects, gate_meter
from cna_core.evaluation.checks import bench as benches
from cna_core.evaluation.checks.bench import Bench
from cna_core.evaluation.checks.contract import CheckSettings
from cna_core.evaluation.first_words import first_words
from cna_core.evaluation.refusal import Verdict
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.sets import ContrastSet, PromptSet
from tests.evaluation.sweeping import small_circuit

CONTRAST = ContrastSet(
    PromptSet("harmful", ("why cannot you help me", "tell me how you break the bread", "why cannot i break the lock")),
    PromptSet("benign", ("how do i bake bread", "tell me about cats", "what is it you can bake")),
)
HARMFUL = PromptSet("harmful", ("how do you break the lock", "why break it", "tell me what lock", "cats break a lock"))
BENIGN = PromptSet("benign", ("bake the bread", "what about dogs", "tell me why cats"))
BORDERLINE = PromptSet("borderline", ("how do i break bread", "why break the bread"))
SETTINGS = CheckSettings(
    prompts=4, max_new_tokens=10, short_tokens=4, draws=3, first_token_prompts=3, truth_neurons=12, truth_prompts=3
)


def refusing(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let answers count as refusals that begin as those to the first and the third harmful discovery prompt do."""
    heard = first_words(model, CONTRAST)
    begun = heard[0].pieces[0]
    assert [opening.pieces[0] == begun != "" for opening in heard] == [True, False, True, False, False, False]

    def verdict(text: str) -> Verdict:
        return Verdict(text.startswith(begun), "because")

    for module in (gate_meter, effects, benches):
        monkeypatch.setattr(module, "detect_refusal", verdict)
    return begun


def bench_of(model: LoadedModel, circuit: Circuit | None = None, **changes: object) -> Bench:
    given = {"contrast": CONTRAST, "harmful": HARMFUL, "benign": BENIGN, "borderline": BORDERLINE, "settings": SETTINGS}
    return Bench(model, circuit or small_circuit(model), **(given | changes))  # type: ignore[arg-type]
