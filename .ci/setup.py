"""Make .venv ready for one of the package's extras; returns at once where it is ready already.

usage: python3 .ci/setup.py notebooks|dev

Needs nothing but Python, and runs on old ones too, to say that they are.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check"]
COMMAND = {"notebooks": "make lab", "dev": "make test"}
MEGABYTES = {"notebooks": 370, "dev": 540}
# PyPI's builds of torch for Linux bring CUDA, several gigabytes that nothing here uses.
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"


def main(extra):
    if sys.version_info < (3, 11):  # noqa: UP036, this file is run by whatever Python is there
        stop(
            f"this is Python {sys.version.split()[0]}, and 3.11 or newer is needed.",
            f"install a newer one and name it: {COMMAND[extra]} PYTHON=python3.12",
        )
    if is_ready(extra):
        return
    if PYTHON.exists():
        print("Bringing .venv up to date: only what is missing or has changed is downloaded.")
    else:
        print(f"Setting up .venv: about {MEGABYTES[extra]} MB to download, 2 to 5 minutes, once.")
    make_environment()
    install("torch, about 200 MB", [*torch_source(), "torch"], extra)
    install("the other packages", ["--editable", f".[{extra}]"], extra)
    settle_jupyterlab()
    stamp(extra).write_text(fingerprint())  # last: half a set-up is no set-up


def stop(cause, mend):
    sys.exit(f"\nSet-up stopped: {cause}\nTo mend it: {mend}")


def stamp(extra):
    return VENV / f".ready-{extra}"


def fingerprint():
    """Return what the environment was made from: when it changes, set-up is due again."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_ready(extra):
    stamps = {stamp(extra), stamp("dev")}  # `dev` contains `notebooks`
    return PYTHON.exists() and any(
        path.exists() and path.read_text() == fingerprint() for path in stamps
    )


def run(command):
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def step(name, command):
    print(f"  {name} ... ", end="", flush=True)
    start = time.monotonic()
    done = run(command)
    print(f"{time.monotonic() - start:.0f} s" if done.returncode == 0 else "failed")
    return done


def make_environment():
    if PYTHON.exists() and run([*PIP, "--version"]).returncode == 0:
        return
    done = step("the virtual environment .venv", [sys.executable, "-m", "venv", "--clear", VENV])
    if done.returncode != 0:
        print(done.stdout[-1000:])
        stop(
            "this Python could not make a virtual environment.",
            "install its venv module (Debian, Ubuntu: apt install python3-venv).",
        )


def torch_source():
    """Return where pip shall look for torch: nothing where it has been told already."""
    names = ("index-url", "find-links", "no-index")
    told = run([*PIP, "config", "list"]).stdout + " ".join(
        key.lower().replace("_", "-") for key in os.environ if key.startswith("PIP_")
    )
    if not sys.platform.startswith("linux") or any(name in told for name in names):
        return []
    return ["--extra-index-url", CPU_BUILDS]


def install(name, what, extra):
    done = step(name, [*PIP, "install", "--quiet", "--constraint", "constraints.txt", *what])
    if done.returncode == 0:
        return
    again = f"then run '{COMMAND[extra]}' again: it goes on where it stopped."
    # What pip says last of a full disk or a dead network is a consequence, and misleads.
    if "No space left" in done.stdout:
        stop("the disk is full.", f"make room for 3 GB, {again}")
    if "connection" in done.stdout.lower():
        stop("pip could not reach the package index.", f"see to the network or proxy, {again}")
    print(*done.stdout.strip().splitlines()[-8:], sep="\n")
    stop("pip could not install the packages.", f"see to what pip says above, {again}")


def settle_jupyterlab():
    """Keep this environment's JupyterLab from asking about news and looking for updates."""
    settings = VENV / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    overrides = {"@jupyterlab/apputils-extension:notification": quiet}
    (settings / "overrides.json").write_text(json.dumps(overrides, indent=2))


if __name__ == "__main__":
    if sys.argv[1:] not in (["notebooks"], ["dev"]):
        sys.exit(__doc__)
    main(sys.argv[1])
