"""The page in Debian's Chromium: every flow in both languages, without scripts, for screen readers, and as pictures.

The pictures lie in the folder that PAGE_PICTURES names, else in pytest's own. `pytest
tests/trigger/test_page_browser.py -m long --write-docs` writes those of docs/business.md anew.
"""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.issuers import LI, free_port, real_issuer, settings_with
from support.paths import ROOT
from support.real_browser import chromium, faults_by_axe, find_axe, leading_on, missing, picture, send_headers
from support.trigger_page import (
    NOW,
    PLAN,
    PROXY,
    VIEWERS,
    Lineage,
    Pointing,
    Registered,
    begin_in_folder,
    begin_on_kubeflow,
    claimed,
    compare_in_store,
    compared,
    on_kubeflow,
    page_settings,
    without_comparison,
)
from support.trigger_server import TOKENS, Running, running, until

from lmmpress.trigger.claims import Claim, State
from lmmpress.trigger.comparisons import keep, read_comparison
from lmmpress.trigger.made_from import Made
from lmmpress.trigger.online import Row, append
from lmmpress.trigger.server.texts import LANGUAGES, Language, Speech

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser")]
MODELS = ("antgmm", "蚂蚁商品图文", "titles")
DOCS = {
    "overview-light": "business-overview.png",
    "run-light": "business-run.png",
    "promotion": "business-promotion.png",
    "overview-phone-zh": "business-phone-zh.png",
}


@dataclass
class Scene:
    """A server with models in several states."""

    server: Running
    running: Claim
    waiting: Claim
    done: Claim


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    plan = PLAN | {"store": str(folder / "pipeline"), "pipeline": {"approve": ["block"]}}
    settings = on_kubeflow(page_settings(folder, MODELS), folder, MODELS[1], plan)
    made = {
        ("antgmm-compressed", "serving"): Made("3", NOW - timedelta(days=40), "3"),
        ("antgmm-compressed", "compressed"): Made("4", NOW - timedelta(days=9), "4"),
        (f"{MODELS[1]}-compressed", "serving"): Made("1", NOW - timedelta(days=80), "6"),
        (f"{MODELS[1]}-compressed", "compressed"): Made("1", NOW - timedelta(days=80), "6"),
        ("titles-compressed", "serving"): Made("2", NOW - timedelta(days=3), "2"),
        ("titles-compressed", "compressed"): Made("2", NOW - timedelta(days=3), "2"),
    }
    newest = {"antgmm": (5, timedelta(days=2)), MODELS[1]: (8, timedelta(days=12)), "titles": (2, timedelta(days=6))}
    lineage = Lineage(made)
    settings = without_comparison(settings)
    with running(settings, Registered(newest), made_from=lineage, aliases=Pointing(lineage)) as server:
        trigger = server.service.trigger
        done = claimed(trigger, "antgmm", "4", State.succeeded, began=NOW - timedelta(days=9), why="new adverts")
        begin_in_folder(trigger, done, "aaraaaar", ended=True)
        compare_in_store(trigger, done)
        running_now = claimed(
            trigger, "antgmm", "5", State.running, began=NOW - timedelta(hours=6), why="autumn titles"
        )
        begin_in_folder(trigger, running_now, "aaraak"[:5])
        waiting = claimed(trigger, MODELS[1], "8", State.running, began=NOW - timedelta(hours=20))
        begin_on_kubeflow(trigger, waiting, "aaar")
        kept = read_comparison(json.dumps(compared()), "comparison.json")
        keep(trigger.objects, kept, by=done.run, at=NOW - timedelta(days=8))
        days = [(NOW - timedelta(days=back)).date() for back in range(6)]
        rows = [Row(day=day, model="antgmm", right=990 - back, rows=1000) for back, day in enumerate(days)]
        rows += [
            Row(day=day, model="antgmm-compressed", version="3", right=980 - 40 * (day == days[1]), rows=1000)
            for day in days
        ]
        append(trigger, rows, "days")
        yield Scene(server, running_now, waiting, done)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("PAGE_PICTURES")
    return Path(named) if named else tmp_path_factory.mktemp("pictures")


def pages_of(scene: Scene) -> dict[str, str]:
    return {
        "overview": "/",
        "model": "/models/antgmm",
        "run": f"/runs/{scene.running.key}",
        "waits": f"/runs/{scene.waiting.key}",
        "done": f"/runs/{scene.done.key}",
        "history": "/history",
        "sign-in": "/sign-in",
        "fault": "/models/none",
        "acts": "/acts",
    }


KINDS = {"light": (1200, False), "dark": (1200, True), "phone": (390, False)}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_readable_by_everybody(
    scene: Scene, pictures: Path, kind: str, language: Language, request: pytest.FixtureRequest
) -> None:
    script, reason = find_axe()
    if not script:
        pytest.skip(reason)
    width, dark = KINDS[kind]
    faults: dict[str, list[str]] = {}
    with chromium(width, 900, dark) as driver:
        send_headers(driver, PROXY | {"X-Auth-Request-Groups": "press-administrators", "Accept-Language": language})
        for name, path in pages_of(scene).items():
            driver.get(scene.server.address + path)
            shot = f"{name}-{kind}" + ("" if language == "en" else "-zh")
            picture(driver, pictures / f"{shot}.png")
            if shot in DOCS and request.config.getoption("--write-docs"):
                picture(driver, ROOT / "docs" / DOCS[shot], 844 if width < 500 else 960)
            faults[shot] = faults_by_axe(driver, script)
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            if wide > width:
                faults[shot].append(f"{wide} px wide")
            assert logged(driver) == []
    assert {name: found for name, found in faults.items() if found} == {}


def logged(driver: Any) -> list[str]:
    """What the browser complains about, such as what the policy forbids; answers with an error are meant here."""
    return [one["message"] for one in driver.get_log("browser") if "Failed to load resource" not in one["message"]]


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_operator_compresses_cancels_and_tries_again(tmp_path: Path, language: Language, scripts: bool) -> None:
    from selenium.webdriver.common.by import By

    say = Speech(language).say
    with (
        running(page_settings(tmp_path), Registered({"antgmm": (5, timedelta(2))}), made_from=Lineage()) as server,
        chromium(scripts=scripts) as driver,
    ):
        send_headers(driver, PROXY | {"Accept-Language": language})
        driver.get(server.address)
        assert driver.find_element(By.TAG_NAME, "h1").text == say("state.none")
        driver.find_element(By.CSS_SELECTOR, "input[value=small]").click()
        driver.find_element(By.NAME, "why").send_keys("秋季标题")
        press(driver, say("fire.button", model="antgmm"))
        until_said(driver, say("done.fired"))
        until(lambda: server.runs.phases)
        (claim,) = server.service.claims("antgmm")
        assert (claim.why, claim.question.plan_name) == ("秋季标题", "small")

        driver.get(f"{server.address}/runs/{claim.key}")
        driver.find_element(By.TAG_NAME, "summary").click()
        press(driver, say("cancel.confirm"), leads_on=False)  # without a reason the browser does not send it
        assert driver.find_elements(By.CLASS_NAME, "done") == []
        driver.find_element(By.NAME, "why").send_keys("wrong rows")
        press(driver, say("cancel.confirm"))
        until_said(driver, say("done.cancelled"))

        def cancelled() -> bool:
            server.service.carry_on_soon(claim.key)
            return server.service.claim(claim.key).state is State.cancelled

        until(cancelled)
        driver.get(f"{server.address}/runs/{claim.key}")
        driver.find_element(By.NAME, "why").send_keys("right rows")
        press(driver, say("retry.confirm"))
        until_said(driver, say("done.retried"))
        assert server.service.claim(claim.key).attempt == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_operator_puts_a_version_into_service_and_takes_it_back(tmp_path: Path, language: Language) -> None:
    from selenium.webdriver.common.by import By

    say = Speech(language).say
    names = {"serving": Made("3", NOW, "3"), "compressed": Made("4", NOW, "5")}
    lineage = Lineage({("antgmm-compressed", alias): made for alias, made in names.items()})
    settings = without_comparison(page_settings(tmp_path))
    newest = Registered({"antgmm": (5, timedelta(2))})
    with running(settings, newest, made_from=lineage, aliases=Pointing(lineage)) as server, chromium() as driver:
        send_headers(driver, PROXY | {"Accept-Language": language})
        for kind, version, shown in (("promote", "4", "state.current"), ("roll_back", "3", "state.ready")):
            driver.get(f"{server.address}/models/antgmm")
            (summary,) = [
                one
                for one in driver.find_elements(By.TAG_NAME, "summary")
                if one.text == say(f"{kind}.title", version=version)
            ]
            summary.click()
            field = summary.find_element(By.XPATH, "..").find_element(By.NAME, "why")
            field.send_keys("更好")
            press(driver, say(f"{kind}.confirm", version=version))
            until_said(driver, say("done.promoted" if kind == "promote" else "done.rolled_back"))
            assert driver.find_element(By.TAG_NAME, "h1").text == say(shown)


def test_what_a_person_decides_by_stands_above_the_button(
    scene: Scene, pictures: Path, request: pytest.FixtureRequest
) -> None:
    from selenium.webdriver.common.by import By

    say = Speech("en").say
    with chromium() as driver:
        send_headers(driver, PROXY)
        driver.get(f"{scene.server.address}/models/antgmm")
        part = driver.find_element(By.CSS_SELECTOR, "section[aria-labelledby=service]")
        part.find_element(By.TAG_NAME, "summary").click()
        order = [
            say("service.version", version="3"),
            say("compared.title", version="4"),
            say("compared.lost"),
            say("promote.title", version="4"),
            say("promote.confirm", version="4"),
        ]
        places = [part.text.find(words) for words in order]
        assert -1 not in places
        assert places == sorted(places)
        picture(driver, pictures / "promotion.png", part=part)
        if request.config.getoption("--write-docs"):
            picture(driver, ROOT / "docs" / DOCS["promotion"], part=part)


def until_said(driver: Any, words: str) -> None:
    """Wait for the page that says what an act has done."""
    from selenium.webdriver.common.by import By

    def said() -> bool:
        return [one.text for one in driver.find_elements(By.CLASS_NAME, "done")] == [words]

    with suppress(AssertionError):
        until(said, 30)
    assert said(), driver.find_element(By.TAG_NAME, "body").text


def press(driver: Any, words: str, leads_on: bool = True) -> None:
    """Press the button with these words, which leads to another page or, where it is refused, does not."""
    from selenium.webdriver.common.by import By

    (button,) = [one for one in driver.find_elements(By.TAG_NAME, "button") if one.text == words]
    with leading_on(driver) if leads_on else nullcontext():
        button.click()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_that_follows_a_run_shows_by_itself_what_happens(tmp_path: Path, language: Language) -> None:
    from selenium.webdriver.common.by import By

    say = Speech(language).say
    plan = PLAN | {"store": str(tmp_path / "pipeline"), "pipeline": {"approve": ["block"]}}
    settings = on_kubeflow(page_settings(tmp_path), tmp_path, "antgmm", plan)
    newest = Registered({"antgmm": (5, timedelta(2))})
    with running(settings, newest, made_from=Lineage()) as server, chromium() as driver:
        claim = claimed(server.service.trigger, "antgmm", "5", State.running, began=NOW)
        (tmp_path / "pipeline").mkdir()
        send_headers(driver, PROXY | {"Accept-Language": language})
        driver.get(f"{server.address}/runs/{claim.key}")

        def shown() -> str:
            # in one go: the page may replace the element at any moment
            return str(driver.execute_script("return document.querySelector('.state').innerText"))

        assert say("run.running.begins") in shown()
        begin_on_kubeflow(server.service.trigger, claim, "aar")
        until(lambda: say("run.waits.more", stage="block") in shown(), 40)
        press(driver, say("approve.button", stage="block"))
        until_said(driver, say("done.approved"))
        assert say("run.waits.more", stage="block") not in shown()
        claims = server.service.trigger.claims
        claims.move(claim, State.succeeded, by="trigger", now=NOW + timedelta(hours=3))
        until(lambda: driver.find_elements(By.ID, "report"), 40)
        assert driver.find_elements(By.CSS_SELECTOR, "[data-follow]") == []


def test_the_language_is_chosen_by_a_link_and_a_token_signs_in(tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    newest = Registered({"antgmm": (5, timedelta(2))})
    with running(page_settings(tmp_path), newest, made_from=Lineage()) as server, chromium() as driver:
        driver.get(server.address)
        with leading_on(driver):
            driver.find_element(By.CSS_SELECTOR, "a[hreflang]").click()
        assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "zh-Hans"
        driver.find_element(By.NAME, "token").send_keys(TOKENS["otto"])
        press(driver, Speech("zh").say("sign_in.button"))
        assert driver.find_element(By.TAG_NAME, "h1").text == Speech("zh").say("state.none")
        press(driver, Speech("zh").say("sign_out"))
        assert driver.find_element(By.NAME, "token")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_person_signs_in_at_the_issuer_and_out_again(
    tmp_path: Path, pictures: Path, language: Language, scripts: bool
) -> None:
    from selenium.webdriver.common.by import By

    say, script = Speech(language).say, find_axe()[0] if scripts else ""
    port, newest = free_port(), Registered({"antgmm": (5, timedelta(2))})
    with real_issuer(LI) as issuer, chromium(scripts=scripts) as driver:
        host = issuer.removeprefix("http://")
        with running(settings_with(tmp_path, issuer, port), newest, made_from=Lineage(), port=port) as server:
            send_headers(driver, {"Accept-Language": language})
            driver.get(f"{server.address}/models/antgmm")
            faults = faults_by_axe(driver, script) if script else []
            picture(driver, pictures / f"sign-in-issuer-{language}.png")
            with leading_on(driver):
                driver.find_element(By.LINK_TEXT, say("sign_in.issuer", issuer=host)).click()
            with leading_on(driver):
                driver.find_element(By.CSS_SELECTOR, f"button[value='{LI['sub']}']").click()
            until(lambda: driver.current_url == f"{server.address}/models/antgmm")
            assert say("signed_in", name=LI["email"], role=say("role.operator")) in driver.page_source
            press(driver, say("fire.button", model="antgmm"))
            until_said(driver, say("done.fired"))
            press(driver, say("sign_out"))
            assert driver.find_element(By.TAG_NAME, "h1").text == say("sign_out.title")
            faults += faults_by_axe(driver, script) if script else []
            picture(driver, pictures / f"sign-out-issuer-{language}.png")
            with leading_on(driver):
                driver.find_element(By.LINK_TEXT, say("sign_out.issuer", issuer=host)).click()
            with leading_on(driver):
                driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
            until(lambda: driver.current_url == f"{server.address}/sign-in")
            driver.get(server.address)
            assert driver.current_url.startswith(f"{server.address}/sign-in")
            assert faults == []
            assert logged(driver) == []


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(scene: Scene) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with chromium() as driver:
        send_headers(driver, PROXY)
        driver.get(scene.server.address + "/models/titles")
        reached, wanted = [], driver.find_elements(By.CSS_SELECTOR, "a, button, input:not([type=hidden])")
        for _ in range(len(wanted) + 5):
            driver.switch_to.active_element.send_keys(Keys.TAB)
            element = driver.switch_to.active_element
            reached.append(element)
            if element.tag_name != "body":
                style = driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
                assert style == "solid", element.get_attribute("outerHTML")
        assert reached[0].get_attribute("class") == "skip"
        left_out = [one.get_attribute("outerHTML") for one in wanted if one not in reached]
        assert [one for one in left_out if "radio" not in one] == []


def test_a_viewer_sees_no_button(scene: Scene) -> None:
    from selenium.webdriver.common.by import By

    with chromium() as driver:
        send_headers(driver, PROXY | {"X-Auth-Request-Groups": VIEWERS})
        for path in ("/", "/models/titles", f"/runs/{scene.waiting.key}", f"/runs/{scene.running.key}"):
            driver.get(scene.server.address + path)
            assert driver.find_elements(By.CSS_SELECTOR, "form, button") == []


def test_the_report_of_a_run_is_shown_with_its_style(scene: Scene, pictures: Path) -> None:
    with chromium() as driver:
        send_headers(driver, PROXY)
        driver.get(f"{scene.server.address}/runs/{scene.done.key}/report")
        picture(driver, pictures / "report.png")
        radius = driver.execute_script("return getComputedStyle(document.querySelector('figure')).borderRadius")
        assert radius == "10px"
        assert logged(driver) == []


def test_the_whole_comparison_is_shown_with_its_style_and_its_pictures(scene: Scene, pictures: Path) -> None:
    with chromium() as driver:
        send_headers(driver, PROXY)
        driver.get(f"{scene.server.address}/runs/{scene.done.key}/comparison")
        picture(driver, pictures / "comparison.png")
        row = "document.querySelector('.rows li')"
        assert driver.execute_script(f"return getComputedStyle({row}).borderRadius") == "10px"
        assert driver.execute_script(f"return {row}.querySelector('img').naturalWidth") == 8
        assert logged(driver) == []


def test_pictures_are_small() -> None:
    for name in DOCS.values():
        data = (ROOT / "docs" / name).read_bytes()
        assert len(data) < 300_000
        assert struct.unpack(">I", data[16:20])[0] <= 1200
