"""Links, paths and names of modules in the documentation lead somewhere; `make docs` checks the links of the site."""

import re

import pytest
from support.paths import ROOT

from tools.floors import source_files
from tools.site import links, pages

FOLDERS = r"(?:lmmpress|components|pipelines|tests|bench|tools|docs|docker|helm|examples|\.ci|\.github)"
PATH = re.compile(rf"{FOLDERS}/[\w./*{{}},-]*")
NAMED_FILE = re.compile(r"(?<![\w./*{}<-])((?:[\w-]+/)+[\w-]+\.(?:py|md|sh))\b")
MADE_BY_USERS = ("docker/.env", "lmmpress/part", "lmmpress/stage")  # the latter two are labels of pods
SOURCES = [
    file
    for pattern in ("**/*.py", "**/*.yaml", "**/*.toml", "**/*.sh", "**/*.yml", "**/Dockerfile", "Makefile", ".ci/run")
    for file in sorted(ROOT.glob(pattern))
    if not {".venv", "build", "out", ".hypothesis"} & set(file.relative_to(ROOT).parts)
]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as viewers of repositories make them."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_files_and_headings(page: str) -> None:
    for path, anchor in links(page):
        assert (ROOT / path).is_file(), f"{page} links to {path}: link to a file, which viewer and site both have"
        assert not anchor or anchor in anchors(path), f"{page} links to {path}#{anchor}"


@pytest.mark.parametrize("page", pages())
def test_paths_and_modules_in_code_exist(page: str) -> None:
    modules = set(source_files())
    for code in re.findall(r"`([^`\n]+)`", (ROOT / page).read_text("utf-8")):
        path = code.split("::")[0]
        if PATH.fullmatch(path) and path not in MADE_BY_USERS:
            assert list(ROOT.glob(path.rstrip("/"))), f"{page} names {path}"
        if re.fullmatch(r"lmmpress(\.[a-z_0-9]+)+", code):
            assert code in modules or code.rpartition(".")[0] in modules, f"{page} names {code}"


@pytest.mark.parametrize("folder", ["lmmpress", "components", "pipelines", "bench", "tools", "docker", "helm", ""])
def test_files_that_sources_name_exist(folder: str) -> None:
    """In comments, docstrings, messages: a path from the root, from lmmpress/, or from the file's own folder."""
    missing = []
    for file in SOURCES:
        top, _, rest = file.relative_to(ROOT).as_posix().partition("/")
        if (top if rest else "") != folder:
            continue
        for line in file.read_text("utf-8").splitlines():
            for named in [] if "://" in line or "tmp" in line else NAMED_FILE.findall(line):
                places = (ROOT, ROOT / "lmmpress", ROOT / "helm/lmmpress", file.parent)
                if not any((place / named).exists() for place in places):
                    missing.append(f"{file.relative_to(ROOT)}: {named}")
    assert not missing, "\n".join(missing)
