"""The notebooks: they run from top to bottom, and are saved with what that gave."""

from __future__ import annotations

import json
import os

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 150_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_whole_small_and_without_an_error(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(text) < MOST_BYTES
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert [one for one in outputs if one.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
    assert [word for word in ("/tmp", "/home", "/root") if word in text] == []


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_an_empty_folder(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    saved = nbformat.read(path, as_version=4)
    ran = nbformat.from_dict(json.loads(json.dumps(saved)))
    (tmp_path / "here").mkdir()
    client = nbclient.NotebookClient(
        ran, timeout=900, resources={"metadata": {"path": str(tmp_path / "here")}}
    )
    client.execute()
    nbformat.validate(ran)
    told = [[output["output_type"] for output in cell.get("outputs", [])] for cell in ran.cells]
    assert told == [[output["output_type"] for output in cell.get("outputs", [])] for cell in saved.cells]
