"""Results of runs: what two must agree on, and made-up ones."""

from typing import Literal

from lmmpress.result import Headline, Interval, Latency, Result, Speed, StepResult, Timing

TOWERS = {"vision": 3_214_080, "qformer": 1_905_664, "language": 7_340_544}


def essence(result: Result) -> list[tuple[str, int, str, str | None]]:
    """What two runs of one plan must agree on."""
    return [(step.stage, step.index, step.decision, step.checkpoint) for step in result.steps]


def headline(checkpoint: str, towers: dict[str, int], accuracy: float, speed: float) -> Headline:
    return Headline(
        checkpoint=checkpoint * 64,
        address=f"file:///store/{checkpoint}",
        parameters=sum(towers.values()),
        parameters_by_tower=towers,
        accuracy=accuracy,
        accuracy_by_task={"advert": accuracy + 0.02, "mask": accuracy - 0.02},
        batch_size=32,
        samples_per_second=speed,
        latency_ms=Latency(p50=1300 / speed, p95=1700 / speed),
    )


TIMING = Timing(
    passes=7,
    rows=64,
    of_rows=128,
    single_rows=20,
    own_rows=64,
    seconds=41.5,
    stopped="seconds",
    rate=Interval(low=160.0, high=183.0, confidence=0.95),
    ratio=Interval(low=1.65, high=1.91, confidence=0.95),
)


def timed(result: Result) -> Result:
    """The same, with how its speed was measured, which results of older versions do not tell."""
    return result.model_copy(update={name: _with(getattr(result, name), timing=TIMING) for name in ENDS})


def both_ways(result: Result) -> Result:
    """The same, whose speed was measured with a compiled step too, five times as fast."""
    told = {}
    for name in ENDS:
        model: Headline = getattr(result, name)
        assert model.speed
        fast = {"samples_per_second": 5 * model.speed.samples_per_second, "way": "compiled"}
        told[name] = _with(model, compiled=model.speed.model_copy(update=fast))
    return result.model_copy(update=told)


def without_speed(result: Result) -> Result:
    """The same run, whose speed was not measured."""
    nothing = {name: Headline.model_fields[name].default for name in Speed.model_fields}
    return result.model_copy(update={name: _with(getattr(result, name), **nothing) for name in ENDS})


def _with(model: Headline, **changes: object) -> Headline:
    return model.model_copy(update=changes)


ENDS = ("original", "compressed")
Decision = Literal["accepted", "rolled back", "kept"]
DECISIONS: dict[str, Decision] = {"a": "accepted", "r": "rolled back", "k": "kept"}


def fabricated(decisions: str = "aaaraaaaaakaaa") -> Result:
    """A run whose steps are accepted (a), rolled back (r) or kept (k), four to a stage."""
    towers, steps, reference, accuracy = dict(TOWERS), [], 0.842, 0.842
    for number, letter in enumerate(decisions):
        stage = ("block", "ffn", "attention", "io")[number // 4 % 4]
        if number % 4 == 0:
            reference = accuracy
        smaller = towers | {"language": round(towers["language"] * 0.9)}
        measured = reference - {"a": 0.008 * (number % 4), "r": 0.19, "k": 0.16}[letter]
        decision = DECISIONS[letter]
        steps.append(
            StepResult(
                stage=stage,
                index=number % 4 + 1,
                tower="language",
                removed=64,
                decision=decision,
                reason=f"drop {reference - measured:.3f} against alpha 0.150",
                parent="0" * 64,
                checkpoint=None if letter == "r" else f"{number:064x}",
                address=None if letter == "r" else f"file:///store/{number}",
                parameters=sum(smaller.values()),
                parameters_by_tower=smaller,
                accuracy_pruned=measured - 0.12 - 0.03 * (number % 3),
                accuracy=measured,
                accuracy_by_task={"advert": measured},
                reference=reference,
                drop=reference - measured,
                drop_interval=Interval(
                    low=reference - measured - 0.02, high=reference - measured + 0.02, confidence=0.9
                ),
                score_reliability=0.93,
                loss=[2.0, 1.0],
                seconds={"importance": 4.2, "prune": 0.3, "distill": 31.0 + 3 * (number % 5), "evaluate": 5.5},
            )
        )
        if letter != "r":
            towers, accuracy = smaller, measured
    return Result(
        original=headline("a", TOWERS, 0.8388, 96.4),
        compressed=headline("b", towers, 0.8169, 171.3),
        drop=0.0219,
        drop_interval=Interval(low=-0.0041, high=0.0483, confidence=0.95),
        reduction={"all": sum(TOWERS.values()) / sum(towers.values())},
        steps=steps,
        run_key="c0ffee" * 10,
        seconds=612.0,
        seconds_by_part={"importance": 58.8, "prune": 4.2, "distill": 512.0, "evaluate": 77.0},
        alpha=0.15,
        environment={"torch": "2.6", "device": "cpu"},
    )
