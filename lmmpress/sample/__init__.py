"""The built-in samples: data sets of drawn advertisements, and small multimodal models "AntGMM-mini" for them."""

from pathlib import Path

MODEL: Path = Path(__file__).parent / "antgmm_mini"
HARD_MODEL: Path = Path(__file__).parent / "antgmm_mini_hard"

# Model and data set by the name of their plan.
SAMPLES: dict[str, tuple[Path, str]] = {
    "sample": (MODEL, "sample"),
    "sample-towers": (MODEL, "sample"),
    "sample-hard": (HARD_MODEL, "sample-hard"),
}
