"""The checks that must stand beside the claim that a circuit's neurons act on refusal: one file a check.

`contract.py` says what a check is and what it gives, `bench.py` holds what checks share, `registry.py` lists them.
"""
