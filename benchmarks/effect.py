"""The speed of measuring effects, compared with capture on the same prompts and with one prompt at a time.

    python benchmarks/effect.py [MODEL] [--device auto] [--dtype auto] [--prompts 112] [--rounds 3]
    python benchmarks/effect.py --synthetic --device cuda

These run alternately in one process: `effects_of` on all prompts, `capture` on the same prompts, the plain method
(eager attention, float32, all logits, one prompt at a time) on some of them, and `explanation` of one. Targets on two
CPU cores with the default model: at most 4 times as long as capture, at least 5 times as fast as the plain method,
1.5 s for an explanation with AVX-512 and 3 s with AVX2, and at most 2 GiB above the weights for 112 prompts.
`--synthetic` uses random weights of the default model's shape and synthetic prompts of the built-in prompts' length.
Prints text; the last line is JSON.
"""

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from benchmarks.machine import processor
from cna_core.circuits.capture import capture
from cna_core.circuits.circuit_file import EffectSettings
from cna_core.circuits.effect import effects_of
from cna_core.circuits.explanation import explanation
from cna_core.circuits.multiplier_gradients import log_odds
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.models.precision import as_device, as_dtype
from cna_core.models.prepacked import prepack, unpacked
from cna_core.prompts.chat_format import encode, shared_prefix_length
from cna_core.prompts.sets import ContrastSet, PromptSet

GIB = 1 << 30
WORDS = ("I", "Sorry", "As")
"""First tokens of the default model's refusals; the speed does not depend on them."""
PLAIN_PROMPTS = 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measuring effects against capture and against the plain method.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--prompts", type=int, default=112)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--synthetic", action="store_true", help="random weights of the default model's shape")
    options = parser.parse_args()
    if options.synthetic:
        model, contrast = synthetic_model(options.device, options.dtype), synthetic_prompts(options.prompts)
        reference, openings = synthetic_model(options.device, "float32"), [7, 8, 9]
    else:
        model = load_model(options.model, options.device, options.dtype)
        reference = model if model.dtype == torch.float32 else load_model(options.model, options.device, "float32")
        harmful = PromptSet.builtin("harmful").prompts[: options.prompts]
        half = len(harmful) // 2
        # Which class a prompt is in makes no difference to either; both read all of them.
        contrast = ContrastSet(PromptSet("first", harmful[:half]), PromptSet("second", harmful[half:]))
        openings = [model.tokenizer.encode(word)[0] for word in WORDS]
    report = measured(model, reference, contrast, openings, options.rounds)
    print(json.dumps({"benchmark": "effect", "synthetic": options.synthetic, **report}))


def measured(
    model: LoadedModel, reference: LoadedModel, contrast: ContrastSet, openings: Sequence[int], rounds: int
) -> dict[str, object]:
    """The seconds of each method and their ratios; `reference` is the model in float32, for the plain method."""
    rows = [encode(model, prompt) for prompt in contrast.prompts]
    refused = np.ones(len(contrast.positive), dtype=bool)
    settings = EffectSettings(contrast=True)
    some = contrast.prompts[:: max(1, len(rows) // PLAIN_PROMPTS)][:PLAIN_PROMPTS]

    def effects() -> Tensor:
        return effects_of(model, contrast, refused, openings, settings=settings, use_cache=False).values

    ways: dict[str, Callable[[], object]] = {
        "effects": effects,
        "capture": lambda: capture(model, contrast, use_cache=False),
        "plain": lambda: [plain(reference, prompt, openings) for prompt in some],
        "explanation": lambda: explanation(model, some[0], openings),
    }
    counts = {"effects": len(rows), "capture": len(rows), "plain": len(some), "explanation": 1}
    print(
        f"{model.name} in {model.number_format} on {model.device} ({machine()}), {torch.get_num_threads()} threads; "
        f"{len(rows)} prompts of {statistics.mean(map(len, rows)):.0f} tokens, {shared_prefix_length(rows)} shared"
    )
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with peak_memory() as peak:
        effects()
    for turn in range(rounds + 1):
        for way, work in ways.items():
            start = time.perf_counter()
            work()
            finish(model)
            if turn:  # the first touches every weight
                seconds[way].append((time.perf_counter() - start) / counts[way])
    report: dict[str, object] = {"model": model.name, "format": model.number_format, "processor": machine()}
    for way, each in seconds.items():
        median = statistics.median(each)
        print(f"  {way:<12} {1000 * median:8.1f} ms a prompt, {1 / median:7.2f} prompts/s")
        report[way] = round(median, 5)
    for name, over, under in (("times_capture", "effects", "capture"), ("faster_than_plain", "plain", "effects")):
        ratios = [one / other for one, other in zip(seconds[over], seconds[under], strict=True)]
        report[name] = round(statistics.median(ratios), 2)
        print(f"  {name.replace('_', ' '):<20} {report[name]}")
    report["gib_above_weights"] = round(peak() / GIB, 2)
    print(f"  {report['gib_above_weights']} GiB above the weights")
    by_hand = torch.cat([plain(reference, prompt, openings) for prompt in some])
    places = [contrast.prompts.index(prompt) for prompt in some]
    report["overlap_of_117"] = overlap(effects()[places].mean(0), by_hand.mean(0), 117)
    print(f"  {report['overlap_of_117']} of the plain method's 117 most negative neurons on {len(some)} prompts found")
    return report


def plain(model: LoadedModel, prompt: str, openings: Sequence[int]) -> Tensor:
    """(1, measured neurons): −Σ a · ∂R/∂a by the plain method: float32, eager attention, all logits, one prompt."""
    measured_layers = model.neuron_layers[: max(1, 2 * len(model.neuron_layers) // 3)]
    seen: list[Tensor] = []

    def note(_module: object, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].requires_grad_()
        seen.append(inputs[0])

    handles = [layer.down_projection.register_forward_pre_hook(note) for layer in measured_layers]  # type: ignore[attr-defined]
    network, before = model.network, model.network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        with unpacked(network):
            tokens = torch.tensor([encode(model, prompt)], device=model.device)
            logits = network(input_ids=tokens, use_cache=False).logits[0, -1]
            gradients = torch.autograd.grad(log_odds(logits, openings), seen)
    finally:
        network.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
    effects = [-(neurons * gradient).sum(1) for neurons, gradient in zip(seen, gradients, strict=True)]
    return torch.cat(effects, dim=1).detach().cpu()


def synthetic_model(device: str, dtype: str) -> LoadedModel:
    """A network of the default model's shape, with random weights."""
    where = as_device(device)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4_864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with where:
        network = Qwen2ForCausalLM(config)
    network = network.to(as_dtype(dtype, where)).eval()  # type: ignore[arg-type]  # of a wrapper's type
    network.requires_grad_(False)
    prepack(network)
    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, 1_000)}}
    tokens = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokens.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>", pad_token="<unk>")
    return LoadedModel("synthetic", "random", network, tokenizer, where)


def synthetic_prompts(count: int) -> ContrastSet:
    """Synthetic prompts with a shared beginning of 24 tokens and own parts of 12 to 19 tokens."""
    generator = np.random.default_rng(0)
    texts = []
    for number in range(count):
        own = generator.integers(100, 900, size=12 + number % 8)
        texts.append(" ".join([f"w{word}" for word in (*range(24), *own)]))
    half = count // 2
    return ContrastSet(PromptSet("first", tuple(texts[:half])), PromptSet("second", tuple(texts[half:])))


def overlap(first: Tensor, second: Tensor, count: int) -> int:
    """How many of the `count` most negative entries they share."""
    most = [set(values.topk(count, largest=False).indices.tolist()) for values in (first, second)]
    return len(most[0] & most[1])


def finish(model: LoadedModel) -> None:
    """Wait until the device has finished its work."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """The peak of additional bytes while this is open: on the GPU, or of the process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
        return
    process, over = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: most - before
    finally:
        over.set()
        watcher.join()


def machine() -> str:
    """The GPU's name, or the CPU's with its instructions."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
