"""The checks that test the claim that a circuit's neurons act on refusal, one file per check.

`contract.py` defines a check and its result, `bench.py` holds what checks share, `registry.py` lists them.
"""
