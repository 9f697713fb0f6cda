"""Runs examples/first_look.ipynb and writes what it shows to docs/first_look.md: `make notebook`.

The notebook itself is kept without outputs, so that changes to it stay readable. Pictures need kaleido and Chromium.
"""

import ast
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # runs from anywhere, with nothing installed
NOTEBOOK = ROOT / "examples" / "first_look.ipynb"
PAGE = ROOT / "docs" / "first_look.md"
PICTURES = ROOT / "docs" / "first_look"
OPENING = """<!-- Written by `make notebook` from examples/first_look.ipynb; change that. -->
"""


def cells(notebook: Path) -> list[tuple[str, str]]:
    """(kind, source) of every cell: "markdown" or "code"."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def run(notebook: Path) -> Iterator[tuple[str, str, str, Any]]:
    """Run the cells in order: (kind, source, what was printed, value of the last expression or None) of each."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, (kind, source) in enumerate(cells(notebook)):
        printed = io.StringIO()
        value = None
        if kind == "code":
            body = ast.parse(source, f"cell {number}")
            last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) else None
            with contextlib.redirect_stdout(printed):
                exec(compile(body, f"cell {number}", "exec"), names)
                if isinstance(last, ast.Expr):
                    value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        yield kind, source, printed.getvalue(), value


def main() -> None:
    """Write the page and its pictures."""
    PICTURES.mkdir(exist_ok=True)
    parts = [OPENING]
    for number, (kind, source, printed, value) in enumerate(run(NOTEBOOK)):
        if kind == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        if printed.strip():
            parts.append(f"```text\n{printed.rstrip()}\n```")
        if hasattr(value, "write_image"):
            picture = PICTURES / f"{number:02}.png"
            value.write_image(picture, width=900, scale=1.5)
            parts.append(f"![{value.layout.title.text or 'chart'}]({picture.relative_to(PAGE.parent)})")
        elif value is not None:
            parts.append(f"```text\n{value}\n```")
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
