"""Measures a checkpoint: accuracy from one forward pass per row, and speed from pixels to answer; and the gate."""
