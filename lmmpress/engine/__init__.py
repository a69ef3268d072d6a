"""Runs: Algorithm 1, its steps and their parts, what the steps share, and the history of decisions."""
