"""`python -m cna_core`: the command line."""

from cna_core.cli import main

main()
