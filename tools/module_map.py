"""Writes the list of all modules into docs/architecture.md: the first sentence of each one's docstring.

python -m tools.module_map
"""

import ast
import re
import tomllib
from pathlib import Path

from tools.floors import ROOT, source_files

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules -->", "<!-- end of modules -->"


def rooms() -> list[str]:
    """The names of all rooms, the top floor first, as the contract in pyproject.toml has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    return [room.strip("() ") for floor in floors for room in floor.split("|")]


def module_map(root: Path = ROOT) -> str:
    """A section for each room, with a list of its modules, in Markdown."""
    files = source_files(root)
    lines = []
    for room in rooms():
        names = [name for name in files if name.split(".")[1:2] == [room]]
        for name in names:
            path, sentence = files[name].relative_to(root), first_sentence(files[name])
            if name == f"lmmpress.{room}":
                folder = path.parent if path.name == "__init__.py" else path
                lines += ["", f"### {room}", "", f"`{folder.as_posix()}`: {sentence}", ""]
            elif sentence != first_sentence(files[name.rpartition(".")[0]]):
                short = path.relative_to(folder).as_posix().removesuffix("/__init__.py")
                lines.append(f"- `{short}`: {sentence}")
    return "\n".join(lines).strip()


def first_sentence(file: Path) -> str:
    """The first sentence of a module's docstring, on one line; ValueError where there is none."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    if not docstring:
        raise ValueError(f"{file} has no docstring")
    first = " ".join(docstring.split("\n\n")[0].split())
    sentence = re.match(r".*?[.?!](?= [A-Z`]|$)", first)
    return sentence[0] if sentence else first


def with_map(page: str) -> str:
    """The page with the list between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{module_map()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text("utf-8")), "utf-8")
