"""The throughput of the batched sweep, compared with one generation at a time, measured alternately in one process.

    python benchmarks/sweep.py [MODEL] [--prompts 2] [--rounds 2] [--tokens 64] [--rows 64 128]
    python benchmarks/sweep.py [MODEL] --five --prompts 26 --rows 64 128

Both generate greedy answers to the same prompts at the same strengths (13 of the circuit and of its random twin, which
share the baseline: 25 settings per prompt, and 12 of CAA with --caa; with --five the strengths 0 to 2 of the circuit,
five settings). The plain method steers with a hook and calls transformers' `generate` for one prompt and one strength
at a time. Because this is slow, it runs another sample of the settings in each round. Several numbers of rows are
measured alternately, for the ratios to the first of them. Target on two CPU cores: ratio at least 5. On a machine with
other work, use OMP_NUM_THREADS=1. Prints text; the last line is JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from anywhere, with nothing installed

from cna_core.circuits.attribution import attribute
from cna_core.circuits.capture import capture
from cna_core.evaluation.batches import Batch
from cna_core.evaluation.dials import Dials, dials_for
from cna_core.evaluation.sweep import measured
from cna_core.evaluation.sweep_plan import SweepPlan, plan_sweep
from cna_core.evaluation.sweep_settings import FINE_STRENGTHS, ROWS_PER_BATCH, SweepSettings
from cna_core.interventions.plan import steered_rows
from cna_core.interventions.registry import DEFAULT_METHOD, DEFAULT_METHODS
from cna_core.models.catalog import DEFAULT_MODEL
from cna_core.models.load import load_model
from cna_core.models.loaded import LoadedModel
from cna_core.prompts.chat_format import encode
from cna_core.prompts.sets import ContrastSet, PromptSet

FIVE = (0.0, 0.5, 1.0, 1.5, 2.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The batched sweep compared with one generation at a time.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--prompts", type=int, default=2, help="number of prompts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--rows", type=int, nargs="+", default=[ROWS_PER_BATCH], help="rows in a batch at most")
    parser.add_argument("--sample", type=int, default=4, help="answers that the plain method generates in each round")
    parser.add_argument("--caa", action="store_true", help="CAA as well")
    parser.add_argument("--five", action="store_true", help="five settings of the circuit alone")
    parser.add_argument("--perplexity", action="store_true", help="the answers' perplexity as well")
    options = parser.parse_args()

    model = load_model(options.model)
    contrast = ContrastSet.builtin()
    circuit = attribute(capture(model, contrast), fraction=0.004)
    prompts = PromptSet("first", PromptSet.builtin("evaluation-harmful").prompts[: options.prompts])
    wanted = SweepSettings(
        prompts=prompts,
        methods=DEFAULT_METHODS if options.caa else (DEFAULT_METHOD,),
        strengths=FIVE if options.five else FINE_STRENGTHS,
        controls=() if options.five else (DEFAULT_METHOD,),
        benign=None,
        borderline=None,
        measures=("refusal_rate", "perplexity") if options.perplexity else ("refusal_rate",),
        max_new_tokens=options.tokens,
        contrast=contrast,
    )
    plans = {
        rows: plan_sweep(model, circuit, wanted.model_copy(update={"rows_per_batch": rows})) for rows in options.rows
    }
    plan = plans[options.rows[0]]
    treatments = [setting.treatment for setting in plan.settings if not setting.is_baseline]
    dials = dials_for(model, plan.circuits, treatments, 0, plan.contrast)
    print(
        f"{options.model} in {model.identity.dtype} on {model.device}, {torch.get_num_threads()} threads; "
        f"{len(prompts)} prompts, {len(plan.settings)} settings, {options.tokens} tokens"
    )
    pairs = [pair for batch in plan.batches for pair in batch.cells]
    plain_rates: list[float] = []
    batched_rates: dict[int, list[float]] = {rows: [] for rows in plans}
    plainly(model, plan, dials, pairs[:1])  # touches every weight
    for turn in range(options.rounds):
        step = max(1, len(pairs) // options.sample)
        plain_rates.append(plainly(model, plan, dials, pairs[turn % step :: step][: options.sample]))
        print(f"  answers/s: one at a time {plain_rates[-1]:6.3f}", flush=True)
        for rows, planned in plans.items():
            batched_rates[rows].append(batched(model, planned, dials, planned.batches))
            print(f"  answers/s: batches of at most {rows:3d} rows {batched_rates[rows][-1]:6.3f}", flush=True)
    ratios = {rows: ratio(rates, plain_rates) for rows, rates in batched_rates.items()}
    to_first = {rows: ratio(rates, batched_rates[options.rows[0]]) for rows, rates in batched_rates.items()}
    for rows, value in ratios.items():
        print(f"  {rows} rows: {value:.1f} times one at a time, {to_first[rows]:.2f} times {options.rows[0]} rows")
    report = {
        "benchmark": "sweep",
        "model": options.model,
        "dtype": model.identity.dtype,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "settings": len(plan.settings),
        "prompts": len(prompts),
        "max_new_tokens": options.tokens,
        "one_at_a_time_answers_per_second": round(statistics.median(plain_rates), 4),
        "batched_answers_per_second": {rows: round(statistics.median(one), 4) for rows, one in batched_rates.items()},
        "ratios": {rows: round(value, 2) for rows, value in ratios.items()},
        "ratios_to_first": {rows: round(value, 2) for rows, value in to_first.items()},
    }
    print(json.dumps(report))


def ratio(rates: list[float], others: list[float]) -> float:
    """The median over rounds of the ratio in the same round."""
    return statistics.median(one / other for one, other in zip(rates, others, strict=True))


def batched(model: LoadedModel, plan: SweepPlan, dials: Dials, batches: Sequence[Batch]) -> float:
    """Answers per second of the sweep's batches."""
    started = time.perf_counter()
    written = sum(len(measured(model, plan, dials, batch)) for batch in batches)
    return written / (time.perf_counter() - started)


def plainly(model: LoadedModel, plan: SweepPlan, dials: Dials, pairs: Sequence[tuple[int, int]]) -> float:
    """Answers per second of transformers' `generate`, one prompt and setting at a time."""
    started = time.perf_counter()
    for prompt, place in pairs:
        setting = plan.settings[place]
        row = torch.tensor([encode(model, plan.conversations["harmful"][prompt])], device=model.device)
        change = dials.lane(plan.conversations["harmful"][prompt], setting).change(model, None)
        with steered_rows(model, [change]), torch.inference_mode():
            model.network.generate(  # type: ignore[operator]
                input_ids=row,
                attention_mask=torch.ones_like(row),
                max_new_tokens=plan.run.settings.max_new_tokens,
                do_sample=False,
                pad_token_id=model.tokenizer.pad_token_id or model.tokenizer.eos_token_id,
            )
    return len(pairs) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
