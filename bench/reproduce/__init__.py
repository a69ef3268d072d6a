"""`make reproduce`: counterparts of the paper's tables and figures, and ablations that it lacks, on built-in presets.

docs/results.md has what was found, and says how to go on.
"""
