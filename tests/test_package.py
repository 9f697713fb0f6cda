"""The package's public names."""

import subprocess
import sys

import cna_core


def test_every_public_name_can_be_imported() -> None:
    assert {name for name in cna_core.__all__ if getattr(cna_core, name) is None} == set()


def test_importing_the_package_does_not_import_torch() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, cna_core; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "False"
