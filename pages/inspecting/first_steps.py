"""What the Gate page says before there is a finding: what will happen, and how long it takes."""

from cna_core.models.catalog import CatalogEntry, catalog
from cna_core.models.disk import in_words
from cna_core.models.fetch import is_ready
from cna_core.prompts.sets import ContrastSet
from pages.common.cards import Card


def time_it_takes(name: str) -> str:
    """How long the chosen model takes, and what it fetches first, in one sentence."""
    entry = catalog().get(name)
    if is_ready(name):
        return "About 10 s for a small model on a laptop; recorded once, and kept."
    if entry is not None and entry.embedded is not None:
        size = in_words(entry.embedded.size_bytes)
        return f"The first time its file is fetched ({size}) and converted; the prompts then take about 10 s."
    return "The first time its files come from the Hub; then the prompts go through."


def steps(name: str, contrast: ContrastSet) -> list[Card]:
    """The three steps from prompts to a circuit, as cards."""
    prompts = f"{len(contrast.positive.prompts)} + {len(contrast.negative.prompts)} prompts"
    return [
        Card("1 · Record", prompts, "refused ones, and matched ones that are not"),
        Card("2 · Compare", _neurons(catalog().get(name)), "each one's mean on the two sets: the difference is δ"),
        Card("3 · Hold against chance", "Shuffled labels", "the same selection, beside every figure"),
    ]


def _neurons(entry: CatalogEntry | None) -> str:
    return "Every neuron" if entry is None else f"{entry.neurons:,} neurons"
