"""The notebook, run by a kernel of Jupyter from its first cell to its last."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.plans import tiny_plan

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FILE = ROOT / "examples" / "notebook.ipynb"


def run_notebook(folder: Path, **parameters: Any) -> list[str]:
    """The pages that cells show, in order; `parameters` take the place of those of the notebook, as papermill does."""
    notebook = nbformat.read(FILE, as_version=4)
    for cell in notebook.cells:
        if parameters and "parameters" in cell.metadata.get("tags", []):
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    warned = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert warned == [], "what the notebook prints itself goes to stdout"
    return [output.data["text/html"] for output in outputs if output.output_type == "execute_result"]


def check_pages(pages: list[str], out: Path) -> None:
    assert len(pages) == 5
    inspected, sizes, result, answers, own = pages
    assert "language" in inspected
    assert "removes" in sizes
    found = json.loads((out / "result.json").read_text("utf-8"))
    assert f"{found['compressed']['accuracy']:.4f}" in result
    assert answers.count("<img") >= 4
    assert own.count("<img") == 1


def test_no_output_is_stored() -> None:
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)


def test_every_cell_runs_on_a_tiny_model(make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    plan = tiny_plan(make_checkpoint("llama"), data) | {"stages": {"block": {"step": 1, "max": 1}}}
    check_pages(run_notebook(tmp_path, plan=plan, changes=[], out="out"), tmp_path / "out")


@pytest.mark.long
def test_it_runs_as_it_stands(tmp_path: Path) -> None:
    check_pages(run_notebook(tmp_path), tmp_path / "out" / "notebook")
