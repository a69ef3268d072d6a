"""Links to the packages that lmmpress requires without any extra, and to what these require in turn.

python -m support.core_packages FOLDER
"""

import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.paths import ROOT


def required() -> dict[str, Distribution]:
    """The distributions by name; those that are not installed here, because a marker leaves them out, are not among
    them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [(text, frozenset[str]()) for text in project["dependencies"]]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        text, extras = waiting.pop()
        asked = Requirement(text)
        if asked.marker and not any(asked.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        key = (canonicalize_name(asked.name), frozenset(asked.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[key[0]] = distribution(asked.name)
        except PackageNotFoundError:
            continue
        waiting += [(one, key[1]) for one in found[key[0]].requires or []]
    return found


def link(folder: Path) -> None:
    """Put links to the files of these distributions, and to lmmpress itself, into a folder of packages."""
    for one in required().values():
        for name in {Path(file).parts[0] for file in one.files or [] if not str(file).startswith("..")} - {
            "__pycache__"
        }:
            target = Path(str(one.locate_file(name)))
            if target.exists() and not (folder / name).exists():
                (folder / name).symlink_to(target)
    (folder / "lmmpress").symlink_to(ROOT / "lmmpress")


if __name__ == "__main__":
    link(Path(sys.argv[1]))
