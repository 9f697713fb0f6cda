"""Commands for models and the cache folder: `models`, `fetch`, `cache`."""

import sys
from typing import Annotated

import typer

from cna_core.cli.options import Model
from cna_core.cli.terminal import working, write


def models() -> None:
    """List the models of the catalog: ids, sizes, and which are on this machine."""
    from cna_core.models.catalog import catalog
    from cna_core.models.fetch import is_ready

    rows = [("id", "kind", "layers × neurons", "bf16 GiB", "4-bit GiB", "")]
    for entry in catalog().values():
        rows.append(
            (
                entry.id,
                entry.kind,
                f"{entry.layers} × {entry.neurons_per_layer}",
                f"{entry.memory_bfloat16_gib:.1f}",
                f"{entry.memory_4bit_gib:.1f}",
                "on this machine" if is_ready(entry.id) else "gated" if entry.gated else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def fetch(model: Model) -> None:
    """Download a model, convert it if needed, and print its folder."""
    from cna_core.models.fetch import fetch as fetch_model

    with working() as watching:
        folder = fetch_model(model, **watching)
    write(str(folder), None)


def cache(
    trim: Annotated[
        float | None,
        typer.Option(
            help="Remove the least recently used entries until at most this many GiB remain.", show_default=False
        ),
    ] = None,
) -> None:
    """List the contents of the cache folder, or trim it."""
    from cna_core.paths import cache_entries, cache_folder, trim_cache

    if trim is not None:
        for entry in trim_cache(round(trim * 2**30)):
            sys.stdout.write(f"removed  {entry.path}\n")
    entries = cache_entries()
    for entry in entries:
        sys.stdout.write(f"{entry.size_bytes / 2**20:10.1f} MiB  {entry.path.relative_to(cache_folder())}\n")
    total = sum(entry.size_bytes for entry in entries)
    sys.stdout.write(f"{total / 2**20:10.1f} MiB  in {cache_folder()}\n")
