"""What the project says it needs is what it imports, everywhere alike."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
LIBRARY = [Requirement(line) for line in PROJECT["dependencies"]]


def imported(*places: str) -> set[str]:
    """The distributions that the files of these folders import from."""
    files = [
        file for place in places for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    modules: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    known = packages_distributions()
    foreign = modules - set(sys.stdlib_module_names) - {"cna_core", "pages", "tests", "benchmarks"}
    return {canonicalize_name(known.get(module, [module])[0]) for module in foreign}


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def lines(file: str) -> list[Requirement]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def test_everything_that_is_imported_is_declared_and_everything_declared_is_imported() -> None:
    everywhere = imported("cna_core", "pages", "app.py")
    declared = names(LIBRARY) | set().union(*(names(EXTRAS[extra]) for extra in ("app", "quantization", "serve")))
    assert everywhere - declared == set()
    assert names(LIBRARY) - everywhere == set()


def test_the_library_without_its_figures_and_reports_needs_no_extra() -> None:
    drawn = ("figures", "reports", "__pycache__")
    folders = [f"cna_core/{path.name}" for path in (ROOT / "cna_core").iterdir() if path.name not in drawn]
    optional = names(EXTRAS["quantization"]) | names(EXTRAS["serve"])
    assert imported(
        *(folder for folder in folders if (ROOT / folder).is_dir() or folder.endswith(".py"))
    ) - optional <= names(LIBRARY)


def test_a_checkout_installs_what_the_package_needs_in_versions_it_allows() -> None:
    checkout, allowed = (
        lines("requirements.txt"),
        {canonicalize_name(r.name): r.specifier for r in [*LIBRARY, *EXTRAS["app"]]},
    )
    assert names(checkout) == set(allowed)
    for requirement in checkout:
        for lowest in re.findall(r"[=>]=\s*([\d.]+\d)", str(requirement.specifier)):
            assert lowest in allowed[canonicalize_name(requirement.name)], requirement


def test_the_tests_need_the_same_in_a_checkout_and_as_an_extra() -> None:
    assert {str(line) for line in lines("tests/requirements.txt")} == {str(line) for line in EXTRAS["test"]}


def test_the_hooks_before_a_commit_use_the_formatter_of_make_lint() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    ruff = next(str(line) for line in lines("tests/requirements.txt") if line.name == "ruff")
    assert set(re.findall(r'"(ruff[^"]*)"', hooks)) == {ruff}


@pytest.mark.parametrize("file", ["README.md", "Makefile", "CONTRIBUTING.md"])
def test_the_oldest_python_is_the_same_wherever_it_is_named(file: str) -> None:
    promised = str(SpecifierSet(PROJECT["requires-python"])).removeprefix(">=")
    said = set(re.findall(r"Python (3\.\d+) or newer", (ROOT / file).read_text(encoding="utf-8")))
    assert said == {promised}
