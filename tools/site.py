"""The site of the documentation has the paths of the repository: a hook of MkDocs (mkdocs.yml names it).

A link in a page is relative to the file it stands in, so it leads to the same file in the site as in a viewer of the
repository. docs/plan.md is the page docs/plan/, README.md is the first page, and a file that a page links to without
being a page itself (a bench, a Dockerfile, a picture) comes along as it is.
"""

import os.path
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**/*.md",
    "examples/**/*.md",
    "components/*/README.md",
    "docker/README.md",
    "helm/lmmpress/README.md",
)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def pages(root: Path = ROOT) -> list[str]:
    """The paths of all pages, from the repository's root."""
    return [file.relative_to(root).as_posix() for pattern in PAGES for file in sorted(root.glob(pattern))]


def links(page: str, root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """The links of a page that stay in the repository: the path from the root, and the anchor or an empty string."""
    text = _CODE.sub("", (root / page).read_text("utf-8"))
    for target in _LINK.findall(text):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        folder = PurePosixPath(page).parent
        yield os.path.normpath(folder / path if path else page).replace(os.sep, "/"), anchor


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Replace what MkDocs found in docs/ by the pages of the repository, and by the files that they link to."""
    from mkdocs.structure.files import File

    for found in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(found)
    wanted = pages()
    linked = {path for page in wanted for path, _ in links(page) if (ROOT / path).is_file()}
    for path in wanted + sorted(linked - set(wanted)):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files
