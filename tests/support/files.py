"""Reading whole folders, and editing the JSON files in them."""

import json
import os
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def nameable(names: list[str]) -> list[str]:
    """Those of some names that files can have here: with an ASCII locale Python creates no others."""

    def can_be(name: str) -> bool:
        try:
            return bool(os.fsencode(name))
        except UnicodeEncodeError:
            return False

    return [name for name in names if can_be(name)]


def edit_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file, which is created if missing."""
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | changes), "utf-8")


def change_config(checkpoint: Path, part: str | None = "text_config", **changes: object) -> Path:
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (config if part is None else config[part]).update(changes)
    (checkpoint / "config.json").write_text(json.dumps(config), "utf-8")
    return checkpoint
