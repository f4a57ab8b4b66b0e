"""Benchmarks, and plans compiled ahead of time."""
