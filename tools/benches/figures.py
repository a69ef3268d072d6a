"""Every figure that docs name and a result file holds, in the order of docs/benchmarks.md.

To add one: a line here. A result file without a ratio or a target goes into left_out.py, with the reason.
"""

from tools.benches.figure import Figure, Path
from tools.benches.memory_figures import MEMORY

AXES = ("block", "ffn", "attention", "io")
SHAPES = ("first shape", "last shape")
SAMPLE, WARM = "docs/sample.md", "docs/warm.md"
WAITING, CHECK = "The share of an epoch", "The check of all rows before a run's first step"
READS, COPIED = "bytes_read_over_source", "speed_as_share_of_copying_the_kept_bytes"


def _by_axis(
    what: str, file: str, key: str, near: str, places: int, *, most: float | None = None, least: float | None = None
) -> list[Figure]:
    return [Figure(f"{what}, {axis}", file, (axis, key), near, most, least, places) for axis in AXES]


def _waiting(file: str, with_threads: str) -> list[Figure]:
    return [
        Figure(
            f"% of an epoch that waits for a batch, {name}, {shape}{with_threads}",
            file,
            (shape, "waiting_share", key),
            WAITING,
            most=0.05,
            places=1,
            times=100,
        )
        for name, key in {"with caches": "with_caches", "decoding each time": "decoding_again"}.items()
        for shape in SHAPES
    ]


def _rows(kind: str, what: str, near: str, most: float | None = None) -> list[Figure]:
    at: Path = tuple(kind.split("/"))
    return [
        Figure(f"MB of {what}, 10,000 rows", "data", (*at, "by_rows", "10000", "peak_mb"), near, places=0),
        Figure(f"MB of {what}, 1,000,000 rows", "data", (*at, "by_rows", "1000000", "peak_mb"), near, places=0),
        Figure(f"memory of {what}, 1,000,000 / 10,000 rows", "data", (*at, "most_over_least"), near, most=most),
    ]


def _in_processes(way: str, words: str, most: float | None = None) -> list[Figure]:
    what = f"processor time of four processes / of one, {words}, updates of"
    return [
        Figure(f"{what} {size} rows", "processes", (size, way, "over_one"), f"| {what} {size} rows |", most)
        for size in ("64", "512")
    ]


FIGURES = [
    Figure("seconds of the sample run", "sample_run", ("seconds",), "seconds, from", 360, places=0, page=SAMPLE),
    Figure("peak memory of the sample run, GB", "sample_run", ("peak_gb",), "peak memory, GB", 3, page=SAMPLE),
    Figure(
        "block parameters of the language tower, original / compressed",
        "sample_run",
        ("language_reduction",),
        "block parameters of the language tower",
        least=18,
        places=1,
        page=SAMPLE,
    ),
    Figure("test accuracy lost", "sample_run", ("drop",), "| test accuracy lost", 0.010, places=4, page=SAMPLE),
    Figure(
        "samples/s, compressed / original",
        "sample_run",
        ("samples_per_second_ratio",),
        "samples/s at batch 64",
        least=4,
        places=1,
        page=SAMPLE,
    ),
    Figure(
        "latency p50, original / compressed",
        "sample_run",
        ("latency_p50_ratio",),
        "latency p50 at batch 1",
        places=1,
        page=SAMPLE,
    ),
    Figure("seconds of sample-towers", "sample_towers_run", ("seconds",), "| seconds in all", places=0, page=SAMPLE),
    Figure(
        "block parameters of the language tower, sample-towers",
        "sample_towers_run",
        ("language_reduction",),
        "language tower's block parameters",
        least=18,
        places=1,
        page=SAMPLE,
    ),
    Figure(
        "test accuracy lost, sample-towers",
        "sample_towers_run",
        ("drop",),
        "| accuracy lost on",
        0.005,
        places=4,
        page=SAMPLE,
    ),
    Figure(
        "samples/s, sample-towers / original",
        "sample_towers_run",
        ("samples_per_second_ratio",),
        "| samples/s at batches",
        least=7.7,
        places=1,
        page=SAMPLE,
    ),
    Figure(
        "latency p50, original / sample-towers",
        "sample_towers_run",
        ("latency_p50_ratio",),
        "latency p50 at batches",
        places=1,
        page=SAMPLE,
    ),
    Figure("seconds of sample-hard", "sample_hard_run", ("seconds",), "seconds from start", places=0, page=SAMPLE),
    Figure(
        "the language tower, original / sample-hard",
        "sample_hard_run",
        ("language_reduction",),
        "| the hard language tower",
        places=1,
        page=SAMPLE,
    ),
    Figure(
        "test accuracy lost, sample-hard", "sample_hard_run", ("drop",), "| lost of its test", places=4, page=SAMPLE
    ),
    Figure(
        "samples/s, sample-hard / original",
        "sample_hard_run",
        ("samples_per_second_ratio",),
        "| its samples/s",
        places=1,
        page=SAMPLE,
    ),
    Figure(
        "latency p50, original / sample-hard",
        "sample_hard_run",
        ("latency_p50_ratio",),
        "| its latency p50",
        places=1,
        page=SAMPLE,
    ),
    Figure(
        "processor time of a warm run / of a full one",
        "warm",
        ("carried", "processor_seconds_ratio"),
        "| warm |",
        page=WARM,
    ),
    Figure("the same, cut anew", "warm", ("anew-0.5", "processor_seconds_ratio"), "| cut anew", page=WARM),
    Figure(
        "importance, dataset, one pass / bare forward and backward",
        "importance",
        ("dataset, 1 pass", "ratio"),
        "importance, `dataset`, one pass",
        1.15,
    ),
    Figure("the same, four passes", "importance", ("dataset, 4 passes", "ratio"), "importance, `dataset`, four"),
    Figure("importance, batch / bare", "importance", ("batch, 1 pass", "ratio"), "importance, `batch`", 1.15),
    Figure("importance, sample / bare", "importance", ("sample, 1 pass", "ratio"), "importance, `sample`", 1.3),
    Figure("plain generation / rows leave", "generation", ("leaving", "ratio"), "rows that have ended leave"),
    Figure("the same, sorted", "generation", ("sorted and leaving", "ratio"), "the same, and rows sorted"),
    Figure("the same, uneven", "generation", ("leaving, uneven answers", "ratio"), "rows leave, answers of a random"),
    Figure("plain generation / static cache", "generation", ("static cache", "ratio"), "a static cache that nothing"),
    *(
        Figure(
            f"an epoch without caches / with caches, {shape}",
            "distillation",
            (shape, "without_caches_over_with"),
            f"one epoch without caches / with caches, {shape}",
            places=1,
        )
        for shape in SHAPES
    ),
    Figure(
        "distillation of a whole run without caches / with caches",
        "caches",
        ("ratio",),
        "distillation of a whole run without caches",
        least=2,
        places=1,
    ),
    *(
        Figure(
            f"distillation with caches, speed of a bare training loop, {shape}",
            "distillation",
            (shape, "speed_of_a_bare_training_step"),
            near,
            least=0.9,
        )
        for shape, near in zip(SHAPES, ("speed of a bare training loop", "the same, last shape"), strict=True)
    ),
    Figure("the sample by stage / in one process", "pipeline", ("stage", "ratio"), "the sample by stage / in one", 1.3),
    Figure(
        "seconds of a task beside its work, by step",
        "pipeline",
        ("step", "seconds_per_task_beside_the_work"),
        "seconds of a task in addition",
        8,
        places=1,
    ),
    Figure(
        "the same by stage",
        "pipeline",
        ("stage", "seconds_per_task_beside_the_work"),
        "the same by stage, mean of 6 tasks",
        places=1,
    ),
    *(
        Figure(
            f"seconds of lmmpress compile, by {granularity}, {number} measurement",
            "pipeline",
            (*at, granularity),
            near,
            2,
            places=1,
        )
        for granularity, near in {"step": "`lmmpress compile` with", "stage": "| the same by stage | "}.items()
        for number, at in {
            "first": ("stage", "compile_seconds"),
            "second": ("step", "compile_seconds"),
            "last": ("compile_seconds_later",),
        }.items()
    ),
    Figure("seconds of all lints and renders of the chart", "chart", ("seconds",), "The chart: 6 lints", 60, places=0),
    Figure("p99 of the trigger's answers / of a bare handler's", "trigger", ("p99_ratio",), "p99 of an answer", 3),
    Figure(
        "processor time of a delivery / of the bare handler's",
        "trigger",
        ("runs", "*", "cpu_milliseconds", "server"),
        "processor time of a delivery",
        over=("runs", "*", "cpu_milliseconds", "bare"),
    ),
    *(
        Figure(
            f"memory of scoring / weights, {case}", "importance_memory", (case, "peak_over_weights"), "peak / weights"
        )
        for case in (
            "bare",
            "dataset, 1 pass",
            "dataset, 1 pass, no reliability",
            "dataset, 4 passes",
            "batch",
            "sample",
        )
    ),
    *_by_axis("cutting 1 GB / copying it", "cut", "cut_over_copy", "seconds of cutting 1 GB", 2, most=1.5),
    *_by_axis("speed of cutting 5.2 GB / of copying", "cut_large_10_blocks", COPIED, "speed of cutting", 1, least=0.6),
    *_by_axis(
        "MB in memory, cutting 5.2 GB",
        "cut_large_10_blocks",
        "anonymous_memory_mb",
        "anonymous memory of that",
        1,
        most=1000,
    ),
    *_by_axis("bytes read / of the source", "cut_large_10_blocks", READS, "bytes read from the disk", 2),
    *_by_axis(
        "MB in memory, cutting 13.8 GB",
        "cut_large_48_blocks",
        "anonymous_memory_mb",
        "anonymous memory with all 48 blocks",
        0,
        most=1000,
    ),
    *_by_axis(
        "speed of cutting 13.8 GB / of copying", "cut_large_48_blocks", COPIED, "speed of that, one round", 2, least=0.6
    ),
    Figure("rate of an upload / of the plain client", "store", ("upload_rate_over_plain",), "rate of an up", least=0.8),
    Figure(
        "rate of a download / of the plain client",
        "store",
        ("download_rate_over_plain",),
        "rate of a download",
        least=0.8,
        places=1,
    ),
    Figure(
        "bytes sent, 30 % unchanged / new",
        "store",
        ("sent_of_a_checkpoint_30_percent_unchanged",),
        "bytes sent for a checkpoint",
        0.71,
        places=3,
    ),
    *(
        Figure(
            f"peak memory of {way} {size} MB, MB",
            "store",
            (f"peak_mb_of_{size}_mb", key),
            f"peak memory of {way}",
            600,
            places=0,
        )
        for way, key in {"sending": "up", "fetching": "down"}.items()
        for size in (300, 1200, 2400)
    ),
    Figure("requests of a cache hit", "store", ("requests_of_a_cache_hit",), "requests for opening", 1, places=0),
    *_rows("encoding/pictures", "encoding, pictures", "encoding, pictures (", 1.5),
    *_rows("reading/text", "reading, text", "reading, text"),
    *_rows("reading/pictures", "reading, pictures", "| reading, pictures"),
    *(
        Figure(f"peak memory of Eq. 5 / its logits, {way}", "loss_memory", (way, "peak_over_logits"), "Eq. 5 on 2,048")
        for way in ("whole", "in portions")
    ),
    Figure(
        "processor time of Eq. 5 in portions / whole",
        "loss_memory",
        ("seconds_in_portions_over_whole",),
        "Eq. 5 on 2,048",
    ),
    *_in_processes("whole", "each with the whole student", 1.1),
    *_in_processes("shares", "each with a share of it"),
    *_waiting("distillation", ""),
    *_waiting("distillation_two_threads", ", two threads"),
    Figure(
        "reading a feature cache, speed of reading its file, from the disk",
        "feature_cache",
        ("from_disk", "reading", "speed_over_raw"),
        "Distillation reads the pictures",
        least=0.8,
    ),
    Figure(
        "the same, from memory",
        "feature_cache",
        ("from_memory", "reading", "speed_over_raw"),
        "Distillation reads the pictures",
    ),
    Figure(
        "opening a feature cache, speed of reading its file",
        "feature_cache",
        ("from_disk", "opening", "speed_over_raw"),
        "Each process compares a cache",
    ),
    Figure(
        "check of rows, speed of decoding, sample", "row_check", ("sample", "speed_of_plain_decoding"), CHECK, least=0.8
    ),
    Figure(
        "check of rows, speed of decoding, photos", "row_check", ("photos", "speed_of_plain_decoding"), CHECK, least=0.8
    ),
    *MEMORY,
]
