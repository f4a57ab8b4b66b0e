"""Benchmarks and ahead-of-time plans."""
