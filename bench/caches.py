"""Measures what the caches save in a whole run: seconds of distillation of the sample run with and without them.

    python bench/caches.py [--runs 1] [--set KEY=VALUE ...]

Filling the caches counts as distillation, since the first batch of a step fills them.
"""

from common import sample_arguments, show, spread
from sample_run import run

from lmmpress.presets import preset


def main() -> None:
    arguments = sample_arguments(__doc__, 1)
    preset(arguments.preset)  # the data is generated before the clock starts
    pairs = [
        [
            distil_seconds(arguments.preset, [*arguments.overrides, f"distillation.caches={caches}"])
            for caches in ("false", "true")
        ]
        for _ in range(arguments.runs)
    ]
    show(
        {
            "distil_seconds_without": spread([without for without, _ in pairs]),
            "distil_seconds_with": spread([cached for _, cached in pairs]),
            "ratio": spread([without / cached for without, cached in pairs]),
        }
    )


def distil_seconds(name: str, overrides: list[str]) -> float:
    return float(run(name, overrides)[2]["seconds_by_part"]["distill"])


if __name__ == "__main__":
    main()
