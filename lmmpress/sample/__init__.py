"""The built-in sample: a data set of drawn advertisements and the small multimodal model "AntGMM-mini"."""

from pathlib import Path

MODEL: Path = Path(__file__).parent / "antgmm_mini"
