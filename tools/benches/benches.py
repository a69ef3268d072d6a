"""The benches of `bench/`, and how `make bench` runs each of them.

To add one: a line here, and its figures in tools/benches/figures.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bench:
    """A bench: `name` is that of its result file, `arguments` those of its script, which is `bench/<name>.py` unless
    `script` names another. With `parts`, the script runs once for each, and the result has each under its name.

    It computes with so many `threads`. `takes` is a size: seconds, minutes or hours, on two cores. `left_out` says why
    it runs only if it is named.
    """

    name: str
    takes: str
    script: str = ""
    arguments: tuple[str, ...] = ()
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    threads: int = 2
    left_out: str = ""

    @property
    def file(self) -> str:
        return f"bench/{self.script or self.name}.py"


RUNS = "it makes many runs of the sample"
BENCHES = [
    Bench("pipeline_size", "seconds"),
    Bench("importance_memory", "minutes"),
    Bench("importance", "minutes"),
    Bench("generation", "minutes", threads=1),
    Bench("cut", "minutes"),
    Bench("profile_step", "minutes", threads=1),
    Bench("row_check", "minutes"),
    Bench("memory", "minutes", threads=1),
    Bench("loss_memory", "minutes", threads=1),
    Bench("economy", "minutes", threads=1),
    Bench("foresight", "minutes", threads=1),
    Bench("card", "minutes", threads=1),
    Bench("gpu", "minutes", left_out="it needs a GPU"),
    Bench("distillation", "minutes", threads=1),
    Bench("distillation_two_threads", "minutes", "distillation", ("--rounds", "1", "--rows", "256")),
    Bench("processes", "minutes", threads=1),
    Bench("caches", "minutes"),
    Bench("feature_cache", "minutes"),
    Bench("sample_run", "minutes", arguments=("--runs", "2")),
    Bench("sample_towers_run", "minutes", "sample_run", ("--preset", "sample-towers", "--runs", "2")),
    Bench("sample_hard_run", "minutes", "sample_run", ("--preset", "sample-hard", "--runs", "1")),
    Bench("chart", "seconds", left_out="it needs Helm, which it fetches"),
    Bench("store", "minutes", left_out="it needs a server for S3, and memory for three checkpoints"),
    Bench("trigger", "minutes", left_out="it needs a core that nothing else uses"),
    Bench("data", "hours", threads=1, left_out="it writes a million rows with pictures"),
    Bench("cut_large_10_blocks", "minutes", "cut_large", ("--blocks", "10", "--rounds", "2"), left_out="much disk"),
    Bench("cut_large_48_blocks", "hours", "cut_large", ("--blocks", "48"), left_out="much disk"),
    Bench(
        "pipeline",
        "hours",
        parts=(
            ("stage", ("--granularity", "stage", "--pairs", "2")),
            ("step", ("--granularity", "step", "--pairs", "1")),
        ),
        left_out=RUNS,
    ),
    Bench("warm", "hours", arguments=("--seeds", "0", "1", "--shares", "0.5"), threads=1, left_out=RUNS),
    Bench("controls", "hours", left_out=RUNS),
    Bench("criteria", "hours", left_out="nothing of it is a ratio"),
    Bench("distillation_rows", "hours", threads=1, left_out=RUNS),
    Bench("determinism", "hours", left_out=RUNS),
    Bench("learning_rate", "hours", left_out=RUNS),
    Bench("refit", "hours", threads=1, left_out="nothing of it is a ratio"),
    Bench("advise", "hours", threads=1, left_out=RUNS),
    Bench("better_repair", "hours", "better", ("--set", "distillation.refit_rows=256"), threads=1, left_out=RUNS),
    Bench("better_states", "hours", "better", ("--set", "distillation.states=0.3"), threads=1, left_out=RUNS),
    Bench(
        "peers",
        "hours",
        "compare_peers",
        ("--folder", "out/peers"),
        threads=1,
        left_out="it needs packages that lmmpress does not",
    ),
]
