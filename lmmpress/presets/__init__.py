"""The built-in plans."""

from pathlib import Path
from typing import Any

from lmmpress.errors import UserError
from lmmpress.settings.plain_yaml import read_document


def preset(name: str, with_data: bool = True) -> dict[str, Any]:
    """The raw mapping of a built-in plan: `sample` or `paper`.

    The sample brings its model and its data, made at first use unless `with_data` is false; the paper's brings the
    config of its model, of which no weights are known.
    """
    folder = Path(__file__).parent
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"no preset named {name!r}; the presets are {', '.join(known)}")
    raw: dict[str, Any] = read_document(folder / f"{name}.yaml", "preset").value
    if name == "sample":
        from lmmpress.sample import MODEL

        return {"model": str(MODEL), "data": _sample_data() if with_data else "sample"} | raw
    return {"model": str(folder / "antgmm"), "data": "maad"} | raw


def _sample_data() -> str:
    from lmmpress.sample.dataset import cached  # which draws pictures: no command that only names the data needs it

    return str(cached())
