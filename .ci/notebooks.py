"""Run notebooks afresh and store their outputs, the same on every machine.

usage: python .ci/notebooks.py [--pictures] [NOTEBOOK ...]      (or all of them)

A picture whose words and neighbours came out as they were stays as it was stored, since the last
bits of trained weights differ between processors and would change its pixels. After a change to
how something is drawn, --pictures stores every picture anew.
"""

import os
import re
import sys
from pathlib import Path

import nbformat
from IPython.utils.path import compress_user
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
# How IPython writes this folder where an error passes through the network's own file.
HERE = f"{compress_user(str(ROOT))}/"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# The first code cell of every page.
SET_UP = """\
# Errors show your own lines and leave out those inside PyTorch.
from blitz_helpers.notebook import short_errors

short_errors()"""
IMAGE = "image/png"
# What moves needs a kernel, and its name differs from run to run: a page stores its still picture.
WIDGET = "application/vnd.jupyter.widget-view+json"


def write_set_up(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.cell_type == "code").source = SET_UP
    nbformat.write(notebook, path)


def execute(path: Path, pictures: bool = False) -> None:
    notebook = nbformat.read(path, as_version=4)
    stored = {cell.id: dict(cell) for cell in notebook.cells}
    client = NotebookClient(
        notebook,
        timeout=600,
        extra_arguments=["--log-level=ERROR"],  # or each kernel warns that it is not encrypted
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # or a progress bar would be stored once for each of its updates
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # All that JupyterLab would fill in, or it would mark the page as changed on opening.
    language = notebook.metadata.language_info
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": language})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        before = stored.get(cell.id, {})
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data.pop(WIDGET, None)
            if output.output_type == "error":
                output.traceback = [line.replace(HERE, "") for line in output.traceback]
            elif output.output_type == "stream":  # what %%writefile says from the second run on
                output.text = re.sub(r"^Overwriting (?=\S+\.py$)", "Writing ", output.text)
        unchanged = "outputs" in before and without_pictures(before) == without_pictures(cell)
        if unchanged and not pictures:
            cell.outputs = before["outputs"]
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def without_pictures(cell):
    """Return a code cell's source and what its outputs say in words."""
    outputs = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        if IMAGE in data:
            data = {kind: text for kind, text in data.items() if kind not in (IMAGE, "text/html")}
        outputs.append({**output, "data": data})
    return cell["source"], outputs


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # sums come out the same whatever the number of cores
    arguments = sys.argv[1:]
    named = [name for name in arguments if name != "--pictures"]
    for name in named or sorted(map(str, NOTEBOOKS.rglob("*.ipynb"))):
        if ".ipynb_checkpoints" in name:  # JupyterLab's own copies
            continue
        print(name, flush=True)
        write_set_up(Path(name))
        execute(Path(name), pictures="--pictures" in arguments)
