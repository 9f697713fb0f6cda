"""Speed and accuracy of capture, compared with the plain method: one prompt at a time, all logits, float32.

    python benchmarks/attribution.py [MODEL] [--device auto] [--prompts 40] [--rounds 4]
    python benchmarks/attribution.py --synthetic 8b --device cuda

Both run alternately in one process: in every round, the plain method runs a part of the prompts and the engine runs all
of them, in bfloat16 and in float32. Targets on two CPU cores with the default model: ratio at least 20 and agreement at
least 98 % in bfloat16, 5 and 100 % in float32; at most 1 GiB above the weights for 200 prompts. For comparison, it also
prints the ratio of an engine that computes only its matrix products, at this machine's measured peak.

`--synthetic` builds a Llama with random weights in bfloat16 instead (8b: the shape of Llama-3.1-8B; tiny: to try the
benchmark) and reports prompts/s for 200 prompts, the ratio to one at a time, and the share of the measured peak of
matrix multiplication that the forward passes reach. Prints text; the last line is JSON.
"""

import argparse
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.circuits.activations import Activations
from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.circuits.last_tokens import recording
from cna_core.circuits.token_tree import TokenTree
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.layers import decoder_layers
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.models.neurons import DenseLayer
from cna_core.models.prepacked import unpacked
from cna_core.prompts.chat_format import encode, shared_prefix_length
from cna_core.prompts.sets import ContrastSet, PromptSet

GIB = 1 << 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Capture against the plain method.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--prompts", type=int, default=40, help="prompts of each class")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--synthetic", choices=sorted(SHAPES), help="random weights of this shape instead of a model")
    options = parser.parse_args()
    report = synthetic(options.synthetic, options.device) if options.synthetic else against_plain(options)
    print(json.dumps({"benchmark": "attribution", **report}))


# ---- against the plain method ----


def against_plain(options: argparse.Namespace) -> dict[str, object]:
    """Prompts/s of the plain method and of the engine in both dtypes, by turns; agreement; memory."""
    models = {dtype: load_model(options.model, options.device, dtype) for dtype in ("bfloat16", "float32")}
    contrast, both = contrast_set(options.prompts), contrast_set(100)
    reference = models["float32"]
    rows = [encode(reference, prompt) for prompt in contrast.prompts]
    print(
        f"{options.model} on {reference.device}, {torch.get_num_threads()} threads; {len(rows)} prompts of "
        f"{statistics.mean(map(len, rows)):.0f} tokens, {shared_prefix_length(rows)} of them shared"
    )
    for model in models.values():
        capture(model, contrast_set(2), use_cache=False)  # touches every weight
    plain_values = torch.empty(len(rows), reference.layout.total)
    plain_rates: list[float] = []
    engine_rates: dict[str, list[float]] = {dtype: [] for dtype in models}
    found: dict[str, Activations] = {}
    for turn in range(options.rounds):
        mine = range(turn, len(rows), options.rounds)
        with stopwatch(reference.device) as elapsed:
            for index in mine:
                plain_values[index] = plainly(reference, rows[index])
        plain_rates.append(len(mine) / elapsed())
        for dtype, model in models.items():
            with stopwatch(model.device) as elapsed:
                found[dtype] = capture(model, contrast, use_cache=False)
            engine_rates[dtype].append(len(rows) / elapsed())
    plain = Activations.of_values(
        reference.identity, contrast.positive.prompts, contrast.negative.prompts, contrast.sha256, plain_values
    )
    plain_rate = statistics.median(plain_rates)
    report: dict[str, object] = {"model": options.model, "device": str(reference.device), "prompts": len(rows)}
    report |= {"threads": torch.get_num_threads(), "plain_prompts_per_second": round(plain_rate, 3)}
    print(f"  plain, float32        {plain_rate:8.2f} prompts/s")
    needed = products(reference, rows)
    for dtype, model in models.items():
        rate = statistics.median(engine_rates[dtype])
        ratio = statistics.median(fast / slow for fast, slow in zip(engine_rates[dtype], plain_rates, strict=True))
        peak = matrix_peak(model.device, model.dtype)
        share = needed / len(rows) * rate / peak
        most = peak / needed * len(rows) / plain_rate
        left_out, kept = agreement(plain, found[dtype], 0.8), agreement(plain, found[dtype], None)
        memory, seconds = peak_memory(model, lambda model=model: capture(model, both, use_cache=False))  # type: ignore[misc]
        print(
            f"  engine, {dtype:<12}  {rate:8.2f} prompts/s, {ratio:5.1f} times; top 0.1 % agree: {100 * left_out:.1f} %"
            f" (universal neurons left out), {100 * kept:.1f} % (kept); {len(both)} prompts: {seconds:.1f} s,"
            f" {memory / GIB:.2f} GiB above the weights; {100 * share:.0f} % of the measured matrix peak of"
            f" {peak / 1e9:.0f} GFLOP/s, at which nothing but the matrix products would be {most:.1f} times"
        )
        report[dtype] = {
            "prompts_per_second": round(rate, 2),
            "ratio": round(ratio, 2),
            "share_of_matrix_peak": round(share, 3),
            "ratio_at_matrix_peak": round(most, 2),
            "agreement": round(left_out, 4),
            "agreement_universal_kept": round(kept, 4),
            "peak_memory_gib": round(memory / GIB, 3),
            "seconds_for_200": round(seconds, 2),
        }
    return report


def products(model: LoadedModel, rows: list[list[int]]) -> int:
    """Floating-point operations of the matrix products for recording rows, without experts.

    The shared beginning counts once; of a dense last layer's MLP, only the neurons of the last tokens count.
    """
    everywhere = sum(weight.numel() for layer in decoder_layers(model.network) for weight in matrices(layer))
    last, at_ends = model.neuron_layers[-1], 0
    if isinstance(last, DenseLayer):
        at_ends = sum(weight.numel() for module in last.up_projections for weight in matrices(module))
        everywhere -= at_ends + sum(weight.numel() for weight in matrices(last.down_projection))
    return 2 * (everywhere * len(TokenTree.of(rows)) + at_ends * len(rows))


def matrices(module: nn.Module) -> list[Tensor]:
    """The matrices that a module multiplies by."""
    return [weight for weight in module.parameters() if weight.ndim == 2]


def plainly(model: LoadedModel, row: list[int]) -> Tensor:
    """(total,) on the CPU: one prompt by the published method, with all logits and torch's own weight format."""
    last = torch.tensor([len(row) - 1])
    neurons: list[Tensor | None] = [None] * len(model.neuron_layers)
    with torch.no_grad(), unpacked(model.network), recording(model, last, neurons):
        model.network(input_ids=torch.tensor([row], device=model.device), use_cache=False)
    return torch.cat([part[0].cpu() for part in neurons if part is not None])


def agreement(first: Activations, second: Activations, universal_threshold: float | None) -> float:
    """The share of the first's top 0.1 % that the second also has."""
    circuits = [attribute(one, universal_threshold=universal_threshold) for one in (first, second)]
    same = set(circuits[0].flat.tolist()) & set(circuits[1].flat.tolist())
    return len(same) / len(circuits[0])


def contrast_set(prompts: int) -> ContrastSet:
    """The first prompts of each built-in class."""
    whole = ContrastSet.builtin()
    first = (PromptSet(one.name, one.prompts[:prompts]) for one in (whole.positive, whole.negative))
    return ContrastSet(*first)


# ---- random weights of a large model's shape ----


@dataclass(frozen=True)
class Shape:
    hidden: int
    neurons: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128_256),
    "tiny": Shape(64, 256, 4, 4, 2, 4_096),
}
_TEMPLATE = (
    "{{ '<s> system cutting knowledge date december 2023 today date 26 jul 2024 end user ' }}"
    "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}{{ 'end assistant go' }}"
)


def synthetic(name: str, device: str) -> dict[str, object]:
    """Prompts/s of the engine and of one prompt at a time, and the share of the device's matrix peak."""
    contrast = contrast_set(100)
    model = random_llama(SHAPES[name], "cuda" if device == "auto" and torch.cuda.is_available() else device, contrast)
    rows = [encode(model, prompt) for prompt in contrast.prompts]
    shared = shared_prefix_length(rows)
    computed = shared + sum(len(row) - shared for row in rows)
    for _ in range(2):
        capture(model, contrast, use_cache=False)
    seconds = []
    for _ in range(5):
        with stopwatch(model.device) as elapsed:
            capture(model, contrast, use_cache=False)
        seconds.append(elapsed())
    alone = rows[:20]
    plainly(model, alone[0])
    with stopwatch(model.device) as elapsed:
        for row in alone:
            plainly(model, row)
    one_at_a_time = len(alone) / elapsed()
    memory, _ = peak_memory(model, lambda: capture(model, contrast, use_cache=False))
    rate = len(rows) / statistics.median(seconds)
    weights = sum(weight.numel() for weight in model.network.model.layers.parameters())
    peak = matrix_peak(model.device)
    share = 2 * weights * computed / statistics.median(seconds) / peak
    print(
        f"Llama of the shape {name}, random bfloat16 weights, on {device_name(model.device)}; {len(rows)} prompts, "
        f"{shared} tokens shared, {computed - shared} not\n"
        f"  engine         {rate:9.1f} prompts/s, {memory / GIB:.2f} GiB above the weights\n"
        f"  one at a time  {one_at_a_time:9.1f} prompts/s (bfloat16, all logits): ratio {rate / one_at_a_time:.1f}\n"
        f"  {100 * share:.0f} % of the measured matrix peak of {peak / 1e12:.1f} TFLOP/s"
    )
    return {
        "synthetic": name,
        "device": device_name(model.device),
        "prompts_per_second": round(rate, 2),
        "one_at_a_time_prompts_per_second": round(one_at_a_time, 2),
        "ratio": round(rate / one_at_a_time, 2),
        "share_of_matrix_peak": round(share, 4),
        "matrix_peak_tflops": round(peak / 1e12, 2),
        "peak_memory_gib": round(memory / GIB, 3),
    }


def random_llama(shape: Shape, device: str, contrast: ContrastSet) -> LoadedModel:
    """A bfloat16 Llama with random weights, and a tokenizer of one token a word."""
    place = torch.device("cpu" if device == "auto" else device)
    words = sorted({word for prompt in contrast.prompts for word in prompt.split()} | set(_TEMPLATE.split()))
    tokens = Tokenizer(WordLevel({word: number for number, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokens.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>", pad_token="<unk>")
    tokenizer.chat_template = _TEMPLATE
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.neurons,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=8192,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    with place:
        network = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    return LoadedModel("synthetic", "seed 0", network, tokenizer, place)


def matrix_peak(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """Measured FLOP/s of large square multiplications, the best of several."""
    side = 8192 if device.type == "cuda" else 1024
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        with stopwatch(device) as elapsed:
            torch.mm(first, second)
        best = min(best, elapsed())
    return 2 * side**3 / best


def device_name(device: torch.device) -> str:
    """The device's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


# ---- measuring ----


@contextmanager
def stopwatch(device: torch.device) -> Iterator[Callable[[], float]]:
    """The seconds of the block, including pending work of the device."""

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    settle()
    start, taken = time.perf_counter(), [0.0]
    yield lambda: taken[0]
    settle()
    taken[0] = time.perf_counter() - start


def peak_memory(model: LoadedModel, work: Callable[[], object]) -> tuple[int, float]:
    """The peak of additional bytes that the work needed, and its seconds.

    On CUDA the allocator reports the peak; elsewhere the process's memory is sampled every few milliseconds.
    """
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
        with stopwatch(model.device) as elapsed:
            work()
        return torch.cuda.max_memory_allocated(model.device) - before, elapsed()
    process, done, highest = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with stopwatch(model.device) as elapsed:
        work()
    done.set()
    watcher.join()
    return highest[0], elapsed()


if __name__ == "__main__":
    main()
