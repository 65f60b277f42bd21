"""Every notebook runs at its small settings, and the committed file holds what a reader of it should see."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# A path of the machine that ran the notebook; "w0.5/tmp" and "https://tmp" are none.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:work|tmp|root|home|Users|usr|opt|mnt|var)\b|[A-Z]:\\")
LARGEST = 400_000  # bytes: a clone brings every version of every notebook


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_picture(output: Any) -> bool:
    return "image/png" in output.get("data", {})


def count_pictures(notebook: Any) -> int:
    return sum(is_picture(output) for cell in code_cells(notebook) for output in cell.outputs)


def faults(path: Path) -> list[str]:
    """The faults of a committed notebook, each as a sentence."""
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    result = []

    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        result.append("not every code cell was run once, from top to bottom")
    for cell in cells:
        shows = "print(" in cell.source or "plt.show()" in cell.source or "Image(" in cell.source
        if shows and not cell.outputs:
            result.append(f"the output of cell {cell.id} is missing")
    if any(output.output_type == "error" for output in outputs):
        result.append("an output is an error")
    if any(output.get("name") == "stderr" for output in outputs):
        result.append("an output is a warning or a progress bar")

    texts = [output.get("text", "") for output in outputs]
    for output in outputs:
        texts += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    if paths := MACHINE_PATH.findall("\n".join(texts)):
        result.append(f"the outputs name paths of a machine: {paths}")

    if not any(is_picture(output) for output in outputs):
        result.append("there is no picture")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3" or any(cell.metadata for cell in cells):
        result.append("the metadata is that of one machine or one run")
    if path.stat().st_size > LARGEST:
        result.append(f"the file has {path.stat().st_size} bytes, more than {LARGEST}")
    return result


def test_each_method_has_a_notebook() -> None:
    methods = {"patient_kd", "distilbert", "tinybert", "dynabert", "pruning"}
    assert methods <= {path.stem for path in NOTEBOOKS}
    listed = set(re.findall(r"\]\((\w+\.ipynb)\)", (FOLDER / "README.md").read_text()))
    assert listed == {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_whole(path: Path) -> None:
    assert faults(path) == []


def test_faults_of_a_notebook_are_found(tmp_path: Path) -> None:
    new = nbformat.v4
    warning = new.new_output("stream", name="stderr", text="/home/someone/cache was not found")
    error = new.new_output("error", ename="ValueError", evalue="no", traceback=[])
    cells = [
        new.new_code_cell("print(1)", execution_count=2, outputs=[]),
        new.new_code_cell("x", execution_count=1, outputs=[warning, error], metadata={"execution": {"start": "now"}}),
    ]
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "bad.ipynb")
    message = "; ".join(faults(tmp_path / "bad.ipynb"))
    for fault in ("top to bottom", "missing", "an error", "a warning", "paths", "no picture", "metadata"):
        assert fault in message


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_at_small_settings(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTKD_NOTEBOOK_QUICK", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Its own history and settings, not those of whoever runs the tests.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=250, kernel_name="python3", resources=resources).execute()
    assert count_pictures(notebook) == count_pictures(read(path)) > 0
