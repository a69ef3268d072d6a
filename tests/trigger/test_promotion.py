"""Promotion: an alias of MLflow's that one person moves at a time, by a rule, and that can always be taken back.

MLflow is its real server on a SQL store; processes that die are killed by a signal.
"""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import cli
from support.forks import Forks
from support.mlflow_server import new_database
from support.mlflow_server import serving as mlflow_serving
from support.promotion_work import (
    ALIAS,
    ORIGINAL,
    Pointed,
    Points,
    Scene,
    comparison_json,
    digest_of,
    do,
    pointed,
    scene,
)

from lmmpress.errors import UserError
from lmmpress.tracking.client import open_client
from lmmpress.tracking.database import uri_of
from lmmpress.trigger.comparisons import keep, of_pair, read_comparison
from lmmpress.trigger.promotion import (
    OUTSIDE,
    Serving,
    Waiting,
    compressed_of,
    history,
    obstacles,
    promote,
    roll_back,
    serving,
    settle,
    waiting,
)
from lmmpress.trigger.promotion_rule import aliases_of
from lmmpress.trigger.serving_record import Entry, read_entries, replayed
from lmmpress.trigger.trigger import Trigger

MakeScene = Callable[..., Scene]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_serving(new_database(folder / "mlflow.db"), folder) as address:
        yield address


@pytest.fixture
def make(tmp_path: Path) -> MakeScene:
    """A scene of its own for this test; keywords are the model's settings."""

    def make(**watched: Any) -> Scene:
        return scene(tmp_path, "AntGMM", uri_of(new_database(tmp_path / "mlflow.db")), **watched)

    return make


@pytest.fixture
def on_server(server: str, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    """A scene behind MLflow's server, where it has a model of its own."""
    return scene(tmp_path, re.sub(r"\W", "-", request.node.name), server)


def fault(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    return str(caught.value)


def put(one: Scene, version: str, by: str = "Ada") -> Serving:
    done = promote(one.trigger, one.compressed, version, by=by, why=f"version {version} is better")
    assert isinstance(done, Serving)
    return done


# Promoting


def test_nothing_is_in_service_before_the_first_promotion(make: MakeScene) -> None:
    one = make()
    assert serving(one.trigger, one.compressed) is None
    one.versions(1)
    assert serving(one.trigger, one.compressed) is None
    assert history(one.trigger, one.compressed) == ()


def test_a_version_is_found_by_its_checkpoint_and_its_original(on_server: Scene) -> None:
    one, aliases = on_server, aliases_of(on_server.trigger)
    assert aliases.made_of(one.compressed, digest_of(1), ORIGINAL) is None
    for digest in (digest_of(1), digest_of(2), digest_of(1)):
        one.register(digest)
    one.register(digest_of(1), original="b" * 64)
    assert aliases.made_of(one.compressed, digest_of(1), ORIGINAL) == "3"
    assert aliases.made_of(one.compressed, digest_of(2), ORIGINAL) == "2"
    assert aliases.made_of(one.compressed, digest_of(3), ORIGINAL) is None
    assert aliases.made_of("it's another", digest_of(1), ORIGINAL) is None


def test_a_promotion_moves_the_alias_and_is_kept_with_name_date_and_reason(on_server: Scene) -> None:
    one = on_server
    one.versions(2)
    put(one, "1")
    done = put(one, "2", by="Bob")
    assert (done.version, done.before, done.by, done.why) == ("2", "1", "Bob", "version 2 is better")
    assert one.at() == "2"
    assert serving(one.trigger, one.compressed) == done
    act = one.acts()[-1]
    assert (act.what, act.by, act.model, act.why) == ("promote", "Bob", one.compressed, "version 2 is better")
    assert "from version 1 to version 2; lost 0.0100 (0.0050 to 0.0150) on 1000 rows" in act.outcome
    tags = one.tags("2")
    assert (tags["lmmpress.promoted_by"], tags["lmmpress.promoted_why"]) == ("Bob", "version 2 is better")
    assert tags["lmmpress.promoted_at"].endswith("Z")


def test_promoting_what_is_in_service_does_nothing(make: MakeScene) -> None:
    one = make()
    one.versions(1)
    done = put(one, "1")
    entries, acts = read_entries(one.trigger.objects, one.compressed), len(one.acts())
    assert promote(one.trigger, one.compressed, "1", by="Bob", why="again") == done
    assert (read_entries(one.trigger.objects, one.compressed), len(one.acts())) == (entries, acts)


def test_the_settings_name_the_alias(make: MakeScene) -> None:
    one = make(serving="live")
    one.versions(1)
    assert put(one, "1").alias == "live"
    assert aliases_of(one.trigger).version_at(one.compressed, "live") == "1"
    assert one.at() is None


def test_only_the_compressed_form_of_a_watched_model_is_promoted(make: MakeScene) -> None:
    one = make()
    assert "is the compressed form of no watched model" in fault(lambda: serving(one.trigger, "Other-compressed"))
    assert compressed_of("Ant.GMM") == "Ant-GMM-compressed", "as a run registers it"


def test_a_reason_is_needed(make: MakeScene) -> None:
    one = make()
    one.versions(1)
    assert "say why" in fault(lambda: promote(one.trigger, one.compressed, "1", by="Ada", why="  "))
    assert "say why" in fault(lambda: roll_back(one.trigger, one.compressed, by="Ada", why=""))


def test_what_people_write_is_one_line_without_credentials(make: MakeScene) -> None:
    one = make()
    one.versions(1)
    promote(one.trigger, one.compressed, "1", by="A\nda", why="see\x1b[2Jhttps://ada:geheim@host/x")
    told = f"{one.acts()} {one.tags('1')} {history(one.trigger, one.compressed)}"
    assert "geheim" not in told
    assert "\\x1b" not in told
    assert "\x1b" not in told


# The rule


@pytest.mark.parametrize(
    ("rule", "compared", "said"),
    [
        ({}, [], "have to be compared first"),
        ({}, [{"lost": 0.03}], "the loss is 0.0300"),
        ({}, [{"lost": 0.02}], ""),
        ({"certain": True}, [{"lost": 0.018}], "the upper bound of the loss is 0.0230"),
        ({"most_lost": 0.05}, [{"lost": 0.03}], ""),
        ({"least_rows": 2000}, [{}], "none of the 1 comparisons counts: at least 2000 rows"),
        ({}, [{"tasks": ["brand"]}], "none of the 1 comparisons counts"),
        ({"data": "e" * 64}, [{}], "none of the 1 comparisons counts"),
        ({"data": "d" * 64}, [{}], ""),
        ({}, [{"lost": 0.03}, {"lost": 0.01}], ""),
        ({}, [{"lost": 0.01}, {"lost": 0.03}], "the loss is 0.0300"),
        ({}, [{"original": "b" * 64}], "have to be compared first"),
        ({"comparison": False}, [], ""),
    ],
)
def test_the_rule_asks_for_a_comparison_of_this_pair(
    make: MakeScene, rule: dict[str, Any], compared: list[dict[str, Any]], said: str
) -> None:
    one = make(promotion=rule)
    version = one.register(digest_of(1))
    for comparison in compared:
        one.compare(digest_of(1), **comparison)
    found = [str(line) for line in obstacles(one.trigger, one.compressed, version, by="Ada")]
    assert said in (found[0] if found else "")
    if said:
        assert fault(lambda: put(one, version)) == "\n".join(found)
        assert one.at() is None
        assert one.acts() == []
    else:
        assert found == []
        assert put(one, version).version == version


def test_versions_that_are_not_there_or_not_ours_are_refused(make: MakeScene) -> None:
    one = make()
    one.versions(1)
    client = open_client(one.trigger.settings.tracking)
    foreign = str(client.create_model_version(one.compressed, "s3://models/y").version)
    for version, said in (
        ("7", "has no version '7'"),
        ("latest", "has no version 'latest'"),
        (foreign, "not registered"),
    ):
        assert said in fault(partial(put, one, version))
    put(one, "1")
    assert "is in service already" in str(obstacles(one.trigger, one.compressed, "1", by="Ada")[0])


def test_a_comparison_is_read_strictly_and_kept_once(make: MakeScene) -> None:
    one = make()
    good = comparison_json(ORIGINAL, digest_of(1))
    for wrong in ("{}", "[]", good.replace('"format": 1', '"format": 2'), good.replace("0.01,", "NaN,"), good[:-1]):
        assert "comparison.json is no comparison" in fault(partial(read_comparison, wrong, "comparison.json"))
    for _ in range(2):
        keep(one.trigger.objects, read_comparison(good, ""), by="Ada", at=one.trigger.clock())
    kept = of_pair(one.trigger.objects, ORIGINAL, digest_of(1))
    assert len(kept) == 1
    assert of_pair(one.trigger.objects, digest_of(1), ORIGINAL) == [], "the other way around is another pair"


# A second person


def test_a_second_person_has_to_confirm(make: MakeScene) -> None:
    one = make(promotion={"second_person": True})
    one.versions(2)
    ask = lambda version, by: promote(one.trigger, one.compressed, version, by=by, why="better")  # noqa: E731
    asked = ask("1", "Ada")
    assert isinstance(asked, Waiting)
    assert (asked.version, asked.by) == ("1", "Ada")
    assert waiting(one.trigger, one.compressed) == asked
    assert ask("1", "ada") == asked, "the same person again is no second person"
    assert one.at() is None
    assert "another person" in str(obstacles(one.trigger, one.compressed, "1", by="Ada")[0])
    assert obstacles(one.trigger, one.compressed, "1", by="Bob") == ()
    done = ask("1", "Bob")
    assert isinstance(done, Serving)
    assert (done.version, done.by) == ("1", "Ada and Bob")
    assert waiting(one.trigger, one.compressed) is None
    assert [act.what for act in one.acts()] == ["ask to promote", "promote"]


def test_who_asks_for_another_version_does_not_confirm(make: MakeScene) -> None:
    one = make(promotion={"second_person": True})
    one.versions(2)
    promote(one.trigger, one.compressed, "1", by="Ada", why="better")
    second = promote(one.trigger, one.compressed, "2", by="Bob", why="better still")
    assert isinstance(second, Waiting)
    assert one.at() is None
    assert isinstance(promote(one.trigger, one.compressed, "1", by="Bob", why="so be it"), Waiting)


def test_rolling_back_needs_no_second_person_and_no_comparison(make: MakeScene) -> None:
    one = make(promotion={"second_person": True, "comparison": False})
    one.versions(0)
    one.register(digest_of(1)), one.register(digest_of(2))
    for version in ("1", "2"):
        for person in ("Ada", "Bob"):
            promote(one.trigger, one.compressed, version, by=person, why="better")
    assert roll_back(one.trigger, one.compressed, by="Ada", why="worse").version == "1"


# Rolling back


def test_rolling_back_leads_to_the_version_before_and_once_more_further_back(make: MakeScene) -> None:
    one = make()
    one.versions(3)
    for version in ("1", "2", "3"):
        put(one, version)
    back = roll_back(one.trigger, one.compressed, by="Bob", why="worse")
    assert (back.version, back.before, back.by, one.at()) == ("2", "1", "Bob", "2")
    assert one.tags("3")["lmmpress.rolled_back_why"] == "worse"
    assert one.tags("2")["lmmpress.put_back_by"] == "Bob"
    again = roll_back(one.trigger, one.compressed, by="Bob", why="worse too")
    assert (again.version, again.before, one.at()) == ("1", None, "1")
    assert "has no version before" in fault(lambda: roll_back(one.trigger, one.compressed, by="Bob", why="worse"))
    assert one.at() == "1"
    assert put(one, "3").before == "1", "what was rolled back may be promoted again"
    assert [act.what for act in one.acts()] == ["promote"] * 3 + ["roll back"] * 2 + ["promote"]


def test_rolling_back_passes_over_versions_that_are_no_longer_registered(make: MakeScene) -> None:
    one = make()
    one.versions(3)
    for version in ("1", "2", "3"):
        put(one, version)
    open_client(one.trigger.settings.tracking).delete_model_version(one.compressed, "2")
    assert roll_back(one.trigger, one.compressed, by="Bob", why="worse").version == "1"


def test_two_people_who_roll_back_at_once_go_back_one_version(make: MakeScene) -> None:
    one = make()
    one.versions(3)
    for version in ("1", "2", "3"):
        put(one, version)
    roll_back(one.trigger, one.compressed, by="Ada", why="worse", seen="3")
    said = fault(lambda: roll_back(one.trigger, one.compressed, by="Bob", why="worse", seen="3"))
    assert "was at version 3 when you looked, and is at version 2 now" in said
    assert one.at() == "2"


# Somebody else moves the alias


def test_an_alias_that_somebody_set_before_is_where_rolling_back_leads(make: MakeScene) -> None:
    one = make()
    one.versions(2)
    one.move("1")
    found = serving(one.trigger, one.compressed)
    assert found is not None
    assert (found.version, found.by, found.since) == ("1", OUTSIDE, None)
    assert put(one, "2").before == "1"
    assert roll_back(one.trigger, one.compressed, by="Ada", why="worse").version == "1"


def test_an_alias_that_somebody_has_moved_since_is_seen_and_said(make: MakeScene) -> None:
    one = make()
    one.versions(3)
    put(one, "1")
    one.move("3")
    found = serving(one.trigger, one.compressed)
    assert found is not None
    assert (found.version, found.before, found.by) == ("3", "1", OUTSIDE)
    said = fault(lambda: promote(one.trigger, one.compressed, "2", by="Ada", why="better", seen="1"))
    assert "serving of" in said
    assert "was at version 1 when you looked, and is at version 3 now" in said
    act = one.acts()[-1]
    assert (act.what, act.by, act.outcome) == ("found", OUTSIDE, "serving was at version 1, and is found at version 3")
    assert roll_back(one.trigger, one.compressed, by="Ada", why="who was that").version == "1"


def test_an_alias_that_somebody_has_removed_is_put_back(make: MakeScene) -> None:
    one = make()
    one.versions(2)
    put(one, "1")
    put(one, "2")
    open_client(one.trigger.settings.tracking).delete_registered_model_alias(one.compressed, ALIAS)
    assert serving(one.trigger, one.compressed) is None
    assert roll_back(one.trigger, one.compressed, by="Ada", why="it was gone").version == "2"


@pytest.mark.parametrize("moment", range(1, 9))
def test_an_alias_that_somebody_moves_in_between_is_seen_and_said(on_server: Scene, moment: int) -> None:
    """Somebody else moves the alias before or after each of the requests to MLflow of a promotion."""
    one = on_server
    one.versions(3)
    put(one, "1")

    def interfere(point: int) -> None:
        if point == moment:
            one.move("3")

    points = Points(interfere)
    aliases: Any = Pointed(aliases_of(one.trigger), points, ("version_at", "move"))
    try:
        promote(one.with_aliases(aliases), one.compressed, "2", by="Ada", why="better", seen="1")
        said = ""
    except UserError as error:
        said = str(error)
    settle(one.trigger, one.compressed)
    there, standing = one.at(), replayed(read_entries(one.trigger.objects, one.compressed))
    assert standing.present == there, "the record knows what is in service"
    assert standing.moving is None
    if there == "3":
        outside = [act for act in one.acts() if act.what == "found"]
        assert said or moment == 8, "who promotes is told, unless it happened after all was read back"
        assert len(outside) == 1
        assert "is found at version 3" in outside[0].outcome
    else:
        assert (there, said) == ("2", ""), "moved over: MLflow has no condition that could forbid it"
        assert moment in (4, 5)
    roll_back(one.trigger, one.compressed, by="Ada", why="order")
    assert one.at() != there


# Two at once


def test_of_two_people_who_promote_at_once_each_is_told_the_truth(on_server: Scene) -> None:
    one = on_server
    one.versions(3)
    put(one, "1")
    told: dict[str, str] = {}
    together = threading.Barrier(2)

    def act(version: str) -> None:
        together.wait()
        try:
            done = promote(one.trigger, one.compressed, version, by=f"who wants {version}", why="mine", seen="1")
            assert isinstance(done, Serving)
            told[version] = "in service"
        except UserError as error:
            told[version] = str(error)

    threads = [threading.Thread(target=act, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [version for version, said in told.items() if said == "in service"]
    assert winners == [one.at()], told
    loser = next(said for said in told.values() if said != "in service")
    assert "somebody else promotes" in loser or "when you looked" in loser
    moved = [entry.version for entry in history(one.trigger, one.compressed)]
    assert moved == ["1", *winners]


# Crashes


def count_points(one: Scene, deed: str, version: str) -> int:
    points = Points(lambda point: None)
    do(pointed(one.trigger, points), deed, one.compressed, version)
    return points.passed


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("support.promotion_work", "mlflow") as started:
        yield started


@pytest.mark.parametrize("deed", ["promote", pytest.param("roll back", marks=pytest.mark.long)])
def test_after_a_crash_anywhere_a_second_try_comes_to_the_same_end(tmp_path: Path, forks: Forks, deed: str) -> None:
    first = tmp_path / "first"
    first.mkdir()
    ready = scene(first, "AntGMM", uri_of(new_database(first / "mlflow.db")))
    ready.versions(3)
    for version in ("1", "2"):
        put(ready, version)

    def prepared(name: str) -> Scene:
        """A copy of the scene in which version 2 is in service, and 1 was before."""
        shutil.copytree(first, tmp_path / name)
        return scene(tmp_path / name, "AntGMM", uri_of(tmp_path / name / "mlflow.db"))

    wanted, whole = ("3", "2") if deed == "promote" else ("1", None), prepared("whole")
    points = count_points(whole, deed, "3")
    assert points >= 16
    for point in range(1, points + 1):
        one = prepared(f"at-{point}")
        code = forks.call("support.promotion_work", "do_and_die", str(one.file), deed, one.compressed, "3", point)
        assert code == -9
        shown = serving(one.trigger, one.compressed)
        assert shown is not None
        assert shown.version == one.at(), "what is shown is what MLflow says"
        was_there = one.at() == wanted[0]
        if not (deed == "roll back" and was_there):
            do(one.trigger, deed, one.compressed, "3")
        settle(one.trigger, one.compressed)
        found = serving(one.trigger, one.compressed)
        assert found is not None
        assert (found.version, found.before, found.by) == (*wanted, "Ada"), f"killed at point {point}"
        assert replayed(read_entries(one.trigger.objects, one.compressed)).moving is None
        moved = [entry.version for entry in history(one.trigger, one.compressed)]
        assert moved == ["1", "2", wanted[0]], "moved once"
        by = one.tags(wanted[0])["lmmpress.promoted_by" if deed == "promote" else "lmmpress.put_back_by"]
        assert by == "Ada"


def test_a_second_try_to_roll_back_after_a_crash_goes_no_further_back(make: MakeScene) -> None:
    one = make()
    one.versions(3)
    for version in ("1", "2", "3"):
        put(one, version)

    class Halted(BaseException):
        pass

    def halt(name: str) -> None:
        raise Halted

    class Aliases:
        def __getattr__(self, name: str) -> Any:
            return halt if name == "tag" else getattr(aliases_of(one.trigger), name)

        def tag(self, *arguments: Any) -> None:
            raise Halted

    with pytest.raises(Halted):
        roll_back(one.with_aliases(Aliases()), one.compressed, by="Ada", why="worse")
    assert one.at() == "2"
    assert roll_back(one.trigger, one.compressed, by="Ada", why="worse").version == "2"


def test_mlflow_that_gives_no_answer_changes_nothing_that_is_kept(make: MakeScene) -> None:
    one = make()
    one.versions(2)
    put(one, "1")

    class Away:
        def __getattr__(self, name: str) -> Any:
            return getattr(aliases_of(one.trigger), name)

        def move(self, *arguments: Any) -> None:
            aliases_of(one.trigger).move(*arguments)
            raise UserError("MLflow at http://mlflow: no answer")

    said = fault(lambda: promote(one.with_aliases(Away()), one.compressed, "2", by="Ada", why="better"))
    assert "no answer" in said
    assert one.acts()[-1].outcome.startswith("failed: MLflow at")
    settle(one.trigger, one.compressed)
    found = serving(one.trigger, one.compressed)
    assert found is not None
    assert (found.version, found.by) == ("2", "Ada")


# The record


def test_the_record_of_a_stranger_is_refused(make: MakeScene) -> None:
    one = make()
    one.versions(1)
    put(one, "1")
    name = next(entry.name for entry in one.trigger.objects.entries("serving/"))
    found = one.trigger.objects.read(name)
    assert found is not None
    one.trigger.objects.write(name, found.data.replace(b'"moved"', b'"stolen"'), found.tag)
    assert "no record of what is in service" in fault(lambda: serving(one.trigger, one.compressed))


def trigger_entries(*steps: tuple[str, str | None, str]) -> list[Entry]:
    from datetime import UTC, datetime

    at = datetime(2026, 11, 29, tzinfo=UTC)
    return [Entry(what=what, version=version, deed=deed, by="Ada", at=at) for what, version, deed in steps]  # type: ignore[arg-type]


def test_versions_before_are_those_below_in_the_stack() -> None:
    moved = lambda version: ("moved", version, "promote")  # noqa: E731
    back = lambda version: ("moved", version, "roll back")  # noqa: E731
    found = lambda version: ("found", version, "promote")  # noqa: E731
    cases = [
        ([], None, ()),
        ([moved("1")], "1", ()),
        ([moved("1"), moved("2"), moved("1")], "1", ("2",)),
        ([moved("1"), moved("2"), moved("3"), back("1")], "1", ()),
        ([moved("1"), moved("2"), found(None)], None, ("2", "1")),
        ([moved("1"), moved("2"), found(None), back("2")], "2", ("1",)),
        ([moved("1"), found("2"), back("1"), moved("3")], "3", ("1",)),
    ]
    for steps, present, before in cases:
        standing = replayed(trigger_entries(*steps))
        assert (standing.present, standing.before) == (present, before), steps


def test_a_trigger_asks_mlflow_at_the_settings_address(make: MakeScene) -> None:
    one: Trigger = make().trigger
    assert one.aliases is None
    assert aliases_of(one) is aliases_of(one)


# From a shell


def test_the_commands_promote_show_and_roll_back(make: MakeScene, tmp_path: Path) -> None:
    one = make()
    one.versions(1)
    one.register(digest_of(2))
    options = ("--settings", one.file)
    assert "no version is in service" in cli.run("trigger", "serving", *options)
    cli.run("trigger", "promote", one.compressed, 1, "--why", "first", *options)
    assert "have to be compared first" in cli.refused("trigger", "promote", one.compressed, 2, "--why", "x", *options)
    comparison = tmp_path / "comparison.json"
    comparison.write_text(comparison_json(ORIGINAL, digest_of(2)), "utf-8")
    more = ("--comparison", comparison, "--seen", 1, "--json")
    done = json.loads(cli.run("trigger", "promote", one.compressed, 2, "--why", "newer", *more, *options))
    assert (done["version"], done["before"], done["why"]) == ("2", "1", "newer")
    shown = json.loads(cli.run("trigger", "serving", "--json", *options))
    assert shown == [{"compressed": one.compressed, "serving": done, "waiting": None}]
    assert "version 2 is in service as serving since" in cli.run("trigger", "serving", *options)
    said = cli.run("trigger", "roll-back", one.compressed, "--why", "worse", *options)
    assert said == f"{one.compressed}: version 1 is in service (before: none)\n"
    assert "when you looked" in cli.refused(
        "trigger", "roll-back", one.compressed, "--why", "worse", "--seen", 2, *options
    )


def test_a_promotion_that_waits_ends_with_1(make: MakeScene) -> None:
    one = make(promotion={"second_person": True})
    one.versions(1)
    said = cli.run("trigger", "promote", one.compressed, 1, "--why", "x", "--settings", one.file, code=1)
    assert "waits for a second person" in said
    assert "waits for a second person" in cli.run("trigger", "serving", "--settings", one.file)


def test_the_commands_append_and_show_rows_of_production(make: MakeScene, tmp_path: Path) -> None:
    one = make()
    file = tmp_path / "answers.csv"
    file.write_text(
        "day,model,right,rows\n2026-11-28,AntGMM,990,1000\n2026-11-28,AntGMM-compressed,900,1000\n", "utf-8"
    )
    options = ("--settings", one.file)
    assert cli.run("trigger", "online", "append", file, *options) == "2 rows, 2026-11-28\n"
    assert cli.run("trigger", "online", "append", file, *options) == ""
    shown = cli.run("trigger", "online", "show", "--until", "2026-11-29", *options)
    assert "0.9900" in shown
    assert "yes" in shown
    told = json.loads(cli.run("trigger", "online", "show", one.compressed, "--until", "2026-11-29", "--json", *options))
    assert told[0]["all"]["drop"] == 0.09
    assert "a day is written as" in cli.refused("trigger", "online", "show", "--until", "today", *options)
