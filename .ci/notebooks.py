"""Execute notebooks afresh and store their outputs, the same on every machine.

usage: python .ci/notebooks.py [NOTEBOOK ...]      (all of notebooks/ where none is named)
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
RED, PLAIN = "\x1b[31m", "\x1b[39m"  # as IPython colours them
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # or a progress bar would be stored once for each of its updates
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                # A traceback holds paths of the machine it was made on: keep name and message.
                output.traceback = [f"{RED}{output.ename}{PLAIN}: {output.evalue}"]
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # sums come out the same whatever the number of cores
    for name in sys.argv[1:] or sorted(map(str, NOTEBOOKS.rglob("*.ipynb"))):
        if ".ipynb_checkpoints" in name:  # JupyterLab's own copies
            continue
        print(name, flush=True)
        execute(Path(name))
