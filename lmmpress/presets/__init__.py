"""The built-in plans."""

from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.settings.plain_yaml import read_document

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of the built-in plans."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.glob("*.yaml"))


def preset(name: str, with_data: bool = True) -> dict[str, Any]:
    """The raw mapping of a built-in plan: `sample` or `paper`.

    The sample brings its model and its data, made at first use unless `with_data` is false; the paper's brings the
    config of its model, of which no weights are known.
    """
    if name not in names():
        raise UserError(f"no preset named {name!r}; the presets are {', '.join(names())}")
    raw: dict[str, Any] = read_document(_FOLDER / f"{name}.yaml", "preset").value
    if name == "sample":
        from lmmpress.sample import MODEL

        return {"model": str(MODEL), "data": _sample_data() if with_data else "sample"} | raw
    return {"model": str(_FOLDER / "antgmm"), "data": "maad"} | raw


def _sample_data() -> str:
    from lmmpress.sample.dataset import cached  # which draws pictures: no command that only names the data needs it

    return str(cached())
