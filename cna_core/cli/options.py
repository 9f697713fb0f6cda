"""Arguments and options that several commands share, and how their values are parsed."""

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
    bool, typer.Option("--trust-remote-code", help="Allow Python code that comes with the model.")
]
Out = Annotated[Path | None, typer.Option(help="File for the result, instead of stdout.", show_default=False)]
PromptSource = Annotated[
    str | None,
    typer.Option(
        help="A .txt (one prompt per line), .csv or .jsonl file, or a public set such as public:jbb-harmful.  "
        "[default: the built-in set]",
        show_default=False,
        metavar="FILE|public:NAME",
    ),
]

Thinking = Annotated[
    bool | None,
    typer.Option(
        "--thinking/--no-thinking",
        help="Whether a model that thinks does so before it answers.  [default: as its chat template decides]",
        show_default=False,
    ),
]
Transfer = Annotated[
    bool,
    typer.Option(
        "--transfer",
        help="Apply a circuit of another model with the same layers, such as the instruct version's to its base model.",
    ),
]


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a comma-separated list.

    Args:
        text: the option's value, such as "0,0.5,1".
        option: the option's name, for the error message.

    Raises:
        CnaError: a part is not a number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise CnaError(f"{option} must be numbers separated by commas, such as 0,0.5,1, not {text!r}.") from error
