"""Debian's Chromium without a window, and axe-core, which finds what keeps people with a disability out of a page."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

AXE = "4.14.1"
"""The version of axe-core on npm."""


def missing() -> str:
    """Why there is no browser here; empty if there is one."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"no {program}: apt-get install chromium chromium-driver"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "the package selenium is not installed"
    return ""


@contextmanager
def chromium(width: int = 1200, height: int = 900, dark: bool = False, scripts: bool = True) -> Iterator[Any]:
    """A browser of that size, which likes light or dark pages."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        resize(driver, width, height)
        yield driver
    finally:
        driver.quit()


@contextmanager
def leading_on(driver: Any, seconds: float = 60) -> Iterator[None]:
    """What is pressed within leads to another page: wait for it. A browser answers before it has left the old one."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    page = driver.find_element(By.TAG_NAME, "html")
    yield

    def left(_: Any) -> bool:
        try:
            page.is_enabled()
        except WebDriverException:  # the element is stale; in the middle of the change the driver says other things
            return True
        return False

    WebDriverWait(driver, seconds).until(left)


def resize(driver: Any, width: int, height: int) -> None:
    """Give the page that size in CSS pixels, as a phone does below 500."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def send_headers(driver: Any, headers: Mapping[str, str]) -> None:
    """Have every request carry headers, as a proxy before the server would add them."""
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": dict(headers)})


def picture(driver: Any, path: Path, tallest: float = 20_000, part: Any = None) -> None:
    """The page, or a part of it, as a PNG, down to `tallest` CSS pixels."""
    import base64

    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {"captureBeyondViewport": True, "clip": _upper(driver, tallest) if part is None else _around(driver, part)}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", asked)
    path.write_bytes(base64.b64decode(taken["data"]))


def _upper(driver: Any, tallest: float) -> dict[str, float]:
    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    return {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], tallest), "scale": 1}


def _around(driver: Any, part: Any, margin: int = 16) -> dict[str, float]:
    place = driver.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY, r.width, r.height]", part
    )
    x, y, width, height = place
    return {"x": x - margin, "y": y - margin, "width": width + 2 * margin, "height": height + 2 * margin, "scale": 1}


def find_axe() -> tuple[str, str]:
    """The script of axe-core, or nothing and the reason. It is fetched from npm once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmmpress" / f"axe-{AXE}.js"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):
            if not cache.exists():
                _fetch(cache)
        return cache.read_text("utf-8"), ""
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        told = getattr(error, "stderr", None) or str(error)
        told = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
        return "", f"no axe-core: npm cannot fetch it: {told.strip()[-300:]}"


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"axe-core@{AXE}"], cwd=folder, check=True, capture_output=True)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            script = archive.extractfile("package/axe.min.js")
            assert script is not None
            target.write_bytes(script.read())


def faults_by_axe(driver: Any, script: str) -> list[str]:
    """What axe-core finds serious or critical on the page, a line each."""
    driver.execute_script(script)
    found = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];axe.run(document).then(done, error => done({error: `${error}`}));"
    )
    assert "error" not in found, found
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
        for node in one["nodes"]
    ]
