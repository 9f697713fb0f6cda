"""Every family: effects are the derivative by the multiplier that steering applies, at all tokens or the last one.

Held against finite differences made with `steered`, one neuron and one unpadded prompt at a time.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import effect_on_lines
from cna_core.circuits.multiplier_gradients import Line, log_odds
from cna_core.interventions.plan import steered
from cna_core.models.experts import MixtureLayer
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import as_messages, encode, shared_prefix_length
from tests.models.test_architectures import circuit_of, model  # noqa: F401  # pytest finds the fixture by its name

OPENINGS = (7, 9, 20)
STEP = 2.0**-9
SYSTEM = "here you can help me to bake the bread and tell me about cats"
PROMPTS = tuple(
    as_messages(prompt, system=SYSTEM)
    for prompt in (
        "how do i break the lock",
        "tell me",
        "tell me about cats here you can help me how do i bake the bread what lock you can break",
    )
)


def lines(model: LoadedModel) -> list[Line]:  # noqa: F811
    return [Line(tuple(encode(model, messages))) for messages in PROMPTS]


def measured(model: LoadedModel, **settings: object) -> NDArray[np.float32]:  # noqa: F811
    chosen = EffectSettings(layers="all", **settings)  # type: ignore[arg-type]
    return -effect_on_lines(model, lines(model), OPENINGS, chosen).gradients.numpy()


def some_neurons(effects: NDArray[np.float32]) -> list[int]:
    """The strongest neurons either way, and some at random."""
    order = np.argsort(effects)
    return sorted({*order[:3].tolist(), *order[-3:].tolist(), *np.random.default_rng(0).choice(len(order), 4).tolist()})


def test_effects_equal_finite_differences_through_steering(model: LoadedModel) -> None:  # noqa: F811
    effects = measured(model)
    assert effects.shape == (3, model.layout.total) and np.abs(effects).max() > 1e-3
    for line, found in zip(lines(model), effects, strict=True):
        chosen = some_neurons(found)
        rows = torch.tensor([line.tokens, line.tokens])
        differences = []
        for neuron in chosen:
            with steered(model, circuit_of(model, [neuron]), [1 + STEP, 1 - STEP]), torch.no_grad():
                logits = model.network(input_ids=rows, use_cache=False).logits[:, -1]
            above, below = log_odds(logits.double(), OPENINGS)
            differences.append(float(below - above) / (2 * STEP))
        np.testing.assert_allclose(found[chosen], differences, rtol=0.02, atol=0.01 * np.abs(effects).max())


def test_the_last_token_alone_counts_where_it_is_asked_for(model: LoadedModel) -> None:  # noqa: F811
    """Where nothing but the last token was read after it, its effect is what is left of the whole one."""
    last, everywhere = measured(model, positions="last"), measured(model)
    final = slice(int(model.layout.offsets[-2]), None)
    np.testing.assert_allclose(last[:, final], everywhere[:, final], rtol=1e-3, atol=1e-5)
    first = slice(0, int(model.layout.offsets[1]))
    assert not np.allclose(last[:, first], everywhere[:, first], atol=1e-4)


@pytest.mark.parametrize("batched", [True, False], ids=["in-one-batch", "one-by-one"])
def test_the_log_odds_are_the_unchanged_models(model: LoadedModel, batched: bool) -> None:  # noqa: F811
    batches = [lines(model)] if batched else [[line] for line in lines(model)]
    settings = EffectSettings(layers="all")
    values = torch.cat([effect_on_lines(model, batch, OPENINGS, settings).values for batch in batches])
    with torch.no_grad():
        logits = [model.network(torch.tensor([line.tokens]), use_cache=False).logits[0, -1] for line in lines(model)]
    torch.testing.assert_close(values, torch.stack([log_odds(row, OPENINGS) for row in logits]), rtol=1e-4, atol=1e-5)


def test_what_the_prompts_begin_with_is_read_once_where_it_can_be(model: LoadedModel) -> None:  # noqa: F811
    """Dense models whose prefix leaves keys and values alone; elsewhere every row reads its own."""
    read: list[int] = []
    handle = model.network.get_input_embeddings().register_forward_hook(lambda _m, i, _o: read.append(i[0].numel()))
    try:
        effects = measured(model)
    finally:
        handle.remove()
    alone = np.concatenate(
        [
            -effect_on_lines(model, [line], OPENINGS, EffectSettings(layers="all")).gradients.numpy()
            for line in lines(model)
        ]
    )
    np.testing.assert_allclose(effects, alone, rtol=1e-3, atol=1e-5 * np.abs(alone).max())
    mixture = any(isinstance(layer, MixtureLayer) for layer in model.neuron_layers)
    stateful = model.name in ("gemma3n_text", "lfm2", "qwen3_5_text")
    tokens = [line.tokens for line in lines(model)]
    begin = shared_prefix_length(tokens)
    assert begin > 10
    assert read[0] == (3 * max(map(len, tokens)) if mixture or stateful else begin)
