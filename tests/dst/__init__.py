"""Deterministic simulation of the whole system; `python -m tests.dst.campaign` runs it at length."""
