"""Claims about choosing tokens."""

import pytest
import torch

from cna_core.decoding.sampling import Sampler, Sampling


def draws(sampling: Sampling, logits: torch.Tensor, count: int) -> torch.Tensor:
    sampler = Sampler(sampling)
    return torch.tensor([sampler.choose(logits[None], [[]])[0] for _ in range(count)])


def test_temperature_zero_takes_the_most_likely() -> None:
    assert Sampler(Sampling()).choose(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]]), [[], []]) == [1, 0]


def test_draws_follow_the_softmax() -> None:
    probabilities = torch.tensor([0.5, 0.1, 0.25, 0.15])
    counts = draws(Sampling(temperature=1.0), probabilities.log(), 8000).bincount(minlength=4) / 8000
    torch.testing.assert_close(counts, probabilities, atol=0.02, rtol=0)


def test_temperature_sharpens() -> None:
    probabilities = torch.tensor([0.6, 0.4])
    share = draws(Sampling(temperature=0.5), probabilities.log(), 4000).float().mean()
    assert share.item() == pytest.approx(0.16 / 0.52, abs=0.03)


def test_equal_rows_draw_equal_tokens_and_close_rows_mostly_do() -> None:
    random = torch.Generator().manual_seed(0)
    row = torch.randn(1000, generator=random)
    sampler = Sampler(Sampling(temperature=1.0))
    close = row + 1e-3 * torch.randn(1000, generator=random)
    chosen = torch.tensor([sampler.choose(torch.stack([row, row, close]), [[]] * 3) for _ in range(300)])
    assert torch.equal(chosen[:, 0], chosen[:, 1])
    assert (chosen[:, 0] == chosen[:, 2]).float().mean() > 0.9


def test_top_k_draws_among_the_most_likely() -> None:
    logits = torch.arange(10.0) / 10
    assert set(draws(Sampling(temperature=1.0, top_k=3), logits, 300).tolist()) == {7, 8, 9}


def test_top_p_draws_among_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([0.05, 0.4, 0.15, 0.4]).log()
    assert set(draws(Sampling(temperature=1.0, top_p=0.7), logits, 300).tolist()) == {1, 3}
    assert set(draws(Sampling(temperature=1.0, top_p=0.85), logits, 300).tolist()) == {1, 2, 3}


def test_top_p_reaches_beyond_the_first_guess_in_a_flat_distribution() -> None:
    chosen = draws(Sampling(temperature=1.0, top_p=0.9), torch.zeros(2000), 500)
    assert len(set(chosen.tolist())) > 300


def test_the_repetition_penalty_lowers_seen_tokens_of_either_sign() -> None:
    sampler = Sampler(Sampling(repetition_penalty=2.0))
    logits = torch.tensor([[4.0, 3.0, -9.0], [-1.0, -1.5, -9.0]])
    kept = logits.clone()
    assert sampler.choose(logits, [[0], [0]]) == [1, 1]
    assert torch.equal(logits, kept)
