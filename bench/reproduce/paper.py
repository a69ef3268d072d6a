"""The numbers that the paper prints, as docs/paper.md has them: tables 2 to 4."""

TASKS = ("Color", "Manifestations", "Content", "Logo", "Style")
"""The tasks of Table 2, in its order."""

TABLE_2: dict[str, tuple[float, float, tuple[float, ...], float]] = {
    "original": (5.4, 1.38, (0.932, 0.967, 0.934, 0.975, 0.833), 0.928),
    "after blocks": (0.9, 6.01, (0.923, 0.951, 0.925, 0.966, 0.802), 0.914),
    "after FFN and attention": (0.6, 6.70, (0.924, 0.968, 0.931, 0.977, 0.806), 0.920),
    "after input/output": (0.3, 7.62, (0.920, 0.971, 0.916, 0.981, 0.825), 0.923),
}
"""By model: size in billions, samples/s, accuracy by task, accuracy of all."""

TABLE_3: dict[str, tuple[float, float, float, float]] = {
    "block": (0.7, 7.93, 0.903, 0.863),
    "ffn": (2.2, 2.11, 0.785, 0.530),
    "attention": (3.8, 1.87, 0.080, 0.076),
    "io": (0.6, 1.95, 0.061, 0.033),
    "all": (0.3, 7.62, 0.923, 0.021),
}
"""By level: size in billions, samples/s, accuracy of gradual and of one-shot pruning."""

TABLE_4: dict[str, float] = {"Eq. 5": 0.923, "no pairwise loss": 0.871, "hard labels": 0.897}
"""Accuracy by distillation."""

FIGURE_6_HURTS = ("block", "attention")
"""The stages of which section 4.3 says that a cut costs more accuracy before distilling."""

FIGURE_7_ENOUGH = 3_000
"""The rows with which section 4.4 calls the outcome desirable; 12,000 are as good as the original."""

FIGURE_10_STAGES = ("block", "ffn and attention", "io")
"""The stages by how much they remove, the most first (appendix B)."""
