"""The lineage of a compressed version: from what is in service back to its data, and to who has asked for it and why.

Each part of it is written down elsewhere: the registry, MLflow's run, the claim, the acts. Here they are put together,
and what does not lead on is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lmmpress.errors import UserError
from lmmpress.tracking.client import explained, open_client
from lmmpress.tracking.registry import TAG
from lmmpress.tracking.walk import Way, way_back
from lmmpress.trigger.act_tags import BEGINS
from lmmpress.trigger.claims import Claim
from lmmpress.trigger.promotion import Serving, original_of, serving
from lmmpress.trigger.promotion_rule import aliases_of, read_candidate
from lmmpress.trigger.trigger import Trigger

_ENGINES = ("lmmpress.claim", "lmmpress.pipeline_run", "lmmpress.workflow")
"""The tags of MLflow's run that lead to a claim: its key, and what the engine calls the run."""


@dataclass(frozen=True)
class LineageOfVersion:
    """What is known of a compressed version. Digests are whole. `comparisons` are one line each, of which the rule
    counts those that begin with `counts`; `acts` the acts about the claim and the version, the oldest first.

    `gaps` are the links that do not lead on, a line each; without any, everything was followed to its end.
    """

    compressed: str
    version: str
    checkpoint: str | None
    address: str | None
    original: str | None
    original_version: str | None
    run_key: str | None
    serving: Serving | None
    way: Way | None
    claim: Claim | None
    comparisons: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


def lineage_of(trigger: Trigger, compressed: str, version: str | None = None) -> LineageOfVersion:
    """The lineage of a version, by default of the one in service.

    Raises UserError if the compressed model comes from no watched one, has no such version, or MLflow or the store do
    not answer.
    """
    model, watched = original_of(trigger, compressed)
    now_there = serving(trigger, compressed)
    number = version or (now_there.version if now_there else None)
    if number is None:
        raise UserError(f"no version of {compressed} is in service; say which one: --version N")
    client = open_client(trigger.settings.tracking)
    with explained(trigger.settings.tracking):
        registered = client.get_model_version(compressed, number)
        way = way_back(client, registered)
        tags = dict(registered.tags)
        claim = _claim_of(trigger.claims.all(model), way, tags.get("lmmpress.original"))
    asked_for = aliases_of(trigger).tags_of(model, claim.question.version) if claim else {}
    kept = read_candidate(trigger, compressed, number, watched.promotion).comparisons
    compared = tuple(
        f"{'counts' if counts else 'does not count'}: lost {one.comparison.all.drop:.4f} on {one.comparison.data.rows} "
        f"rows of data {one.comparison.data.digest}, by {one.by} on {one.at:%Y-%m-%d %H:%M} UTC"
        for one, counts in kept
    )
    found = LineageOfVersion(
        compressed=compressed,
        version=number,
        checkpoint=tags.get("lmmpress.checkpoint"),
        address=tags.get(TAG),
        original=tags.get("lmmpress.original"),
        original_version=claim.question.version if claim else None,
        run_key=tags.get("lmmpress.run_key"),
        serving=now_there if now_there and now_there.version == number else None,
        way=way,
        claim=claim,
        comparisons=compared,
        acts=_acts(asked_for, claim.key if claim else "") + _acts(tags),
    )
    return replace(found, gaps=tuple(_gaps(found, tags)))


def _claim_of(claims: list[Claim], way: Way | None, original: str | None) -> Claim | None:
    """The claim that MLflow's run names, else the newest one about that original that has succeeded."""
    named = {way.tags[tag] for tag in _ENGINES if tag in way.tags} if way else set()
    for claim in reversed(claims):
        if claim.key in named or claim.run in named or (claim.sent and claim.sent.id in named):
            return claim
    done = [claim for claim in claims if original and claim.question.digest == original and claim.state == "succeeded"]
    return done[-1] if done and not named else None


def _acts(tags: Mapping[str, str], claim: str = "") -> tuple[str, ...]:
    """The acts among the tags of a version, of one claim if that is given."""
    found = sorted(name for name in tags if name.startswith(BEGINS) and claim in tags[name])
    return tuple(f"{name.removeprefix(BEGINS)[:19]} {tags[name]}" for name in found)


def _gaps(found: LineageOfVersion, tags: dict[str, str]) -> list[str]:
    """What does not lead on."""
    gaps = []
    if found.checkpoint is None or found.original is None:
        gaps.append("the version does not say which checkpoint it is, or of which original: it is none of lmmpress's")
    if found.way is None:
        gaps.append("the version names no run that MLflow has")
    elif not found.way.is_whole:
        gaps.append(f"the steps of MLflow's run {found.way.run} do not lead back to the original")
    elif not found.way.data:
        gaps.append(f"MLflow's run {found.way.run} names no data")
    if found.claim is None:
        gaps.append("no claim asked for it: it was compressed without the trigger, or the claims were lost")
    if found.serving and found.serving.since is None:
        gaps.append("the alias was moved without lmmpress, so nobody knows by whom")
    elif found.serving and f"lmmpress.{_deed(found.serving, tags)}_by" not in tags:
        gaps.append("MLflow's version does not say who has put it into service; the store does")
    return gaps


def _deed(serving: Serving, tags: dict[str, str]) -> str:
    return "put_back" if "lmmpress.put_back_by" in tags else "promoted"
