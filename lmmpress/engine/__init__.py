"""A run: Algorithm 1, its steps and their parts, what they share, what was decided."""
