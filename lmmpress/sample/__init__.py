"""The built-in samples: data sets of drawn advertisements, and small multimodal models "AntGMM-mini" for them."""

from pathlib import Path

MODEL: Path = Path(__file__).parent / "antgmm_mini"
HARD_MODEL: Path = Path(__file__).parent / "antgmm_mini_hard"

# By the name of their plan.
MODELS: dict[str, Path] = {"sample": MODEL, "sample-hard": HARD_MODEL}
