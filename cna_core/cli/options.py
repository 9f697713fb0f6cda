"""Arguments and options that several commands share, and how their text is read."""

from pathlib import Path
from typing import Annotated

import typer

from cna_core.errors import CnaError

Model = Annotated[
    str, typer.Argument(help="Catalog id, Hub id, folder, or .gguf file.", metavar="MODEL", show_default=False)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, bfloat16, float32 or float16.")]
Quantization = Annotated[str | None, typer.Option(help="4bit or 8bit (needs bitsandbytes).", show_default=False)]
DeviceMap = Annotated[
    str | None, typer.Option(help='"auto" spreads the model over GPUs, memory and disk.', show_default=False)
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]
Out = Annotated[
    Path | None, typer.Option(help="File to write; without it the result goes to stdout.", show_default=False)
]
PromptSource = Annotated[
    str | None,
    typer.Option(
        help=".txt (one a line), .csv or .jsonl, or a public set like public:jbb-harmful; without it the built-in set.",
        show_default=False,
        metavar="FILE|public:NAME",
    ),
]


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a comma-separated list.

    Args:
        text: what the user gave, like "0,0.5,1".
        option: the option's name, for the message.

    Raises:
        CnaError: a part is not a number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise CnaError(f"{option} takes numbers separated by commas, like 0,0.5,1, not {text!r}.") from error
