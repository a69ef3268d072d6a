"""The built-in plans."""

from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.sample import SAMPLES
from lmmpress.settings.plain_yaml import read_document

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of the built-in plans."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.glob("*.yaml"))


def preset(name: str, with_data: bool = True) -> dict[str, Any]:
    """The raw mapping of a built-in plan: `sample`, `sample-towers`, `sample-hard` or `paper`.

    A sample brings its model and its data, made at first use unless `with_data` is false; the paper's brings the
    config of its model, of which no weights are known.
    """
    if name not in names():
        raise UserError(f"no preset named {name!r}; the presets are {', '.join(names())}")
    raw: dict[str, Any] = read_document(_FOLDER / f"{name}.yaml", "preset").value
    if name in SAMPLES:
        model, data = SAMPLES[name]
        return {"model": str(model), "data": str(_made(data)) if with_data else data} | raw
    return {"model": str(_FOLDER / "antgmm"), "data": "maad"} | raw


def _made(name: str) -> Path:
    """A data set of a sample. Its module draws pictures: no command that only names the data needs it."""
    if name == "sample":
        from lmmpress.sample import dataset

        return dataset.cached()
    from lmmpress.sample import hard

    return hard.cached()
