"""The figures of memory that is predicted: of parts, of updates, of students on a card."""

from tools.benches.figure import Figure

PARTS = ("prepare", "steps", "evaluate", "due", "importance", "prune", "distill", "gate", "publish", "stage")
FORESEEN = {
    "sample": "| the built-in sample | 64, 24 |",
    "llama": "| Llama, 8 blocks, width 512 |",
    "blip2-opt": "| BLIP-2 with OPT, 6 blocks, width 256 |",
    "wide": "| Llama, 3 blocks, width 1024 |",
    "pictures": "| BLIP-2 with Llama, 14 blocks, width 320 |",
}
"""The models of bench/foresight.py, as docs name them."""

MEMORY = [
    *(
        Figure(
            f"memory of {part}, predicted / measured",
            "memory",
            ("parts", part, "predicted_over_measured"),
            "| predicted / measured |",
            1.1,
            0.7,
        )
        for part in PARTS
    ),
    *(
        Figure(f"{what} of an update, foreseen / measured, {shape}", "foresight", (shape, key), words, most, least)
        for shape, words in FORESEEN.items()
        for what, key, most, least in (
            ("memory", "memory_predicted_over_measured", 1.15, 0.85),
            ("seconds", "seconds_predicted_over_measured", 1.3, 0.7),
        )
    ),
    Figure(
        "GB of a student of 44 blocks with averages of 8 bits, predicted",
        "card",
        ("44 blocks, 8 rows", "gb", "with recomputation, 8-bit averages"),
        "The target is at most 72 GB",
        72,
        places=1,
    ),
]
