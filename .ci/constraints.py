"""Write constraints.txt anew: the newest packages that fit together, beside the torch pinned there.

usage: .venv/bin/python .ci/constraints.py      (with the Python that environment.yml names)
"""

import json
import subprocess
import sys

from setup import PIP, ROOT, torch_source

FILE = ROOT / "constraints.txt"


def main():
    lines = FILE.read_text("utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    torch = next(line for line in lines if line.startswith("torch=="))
    resolve = [*PIP, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    found = subprocess.run(
        [*resolve, *torch_source(), torch, "--editable", ".[dev]"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    if found.returncode != 0:
        sys.exit("constraints.txt is as it was: pip found no set of packages, see above.")
    packages = [package["metadata"] for package in json.loads(found.stdout)["install"]]
    pins = [
        f"{package['name']}=={package['version'].partition('+')[0]}"  # `+cpu` is left to pip
        for package in packages
        if package["name"] != "blitz-helpers"
    ]
    FILE.write_text("\n".join([*comments, *sorted(pins, key=str.lower)]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
