"""Benchmarks by others: a checkpoint goes to lm-evaluation-harness or lmms-eval, and their numbers come back."""

from lmmpress.benchmarks.ask import Asked, ask, asked_for
from lmmpress.benchmarks.records import Benchmark, Benchmarks, grid_of, keep, kept_benchmarks

__all__ = ["Asked", "Benchmark", "Benchmarks", "ask", "asked_for", "grid_of", "keep", "kept_benchmarks"]
