"""Make benchmarks/.venv: the peers, on top of the packages of the environment that runs this."""

import subprocess
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"
PACKAGES = sysconfig.get_path("purelib")  # torch is not installed a second time


def main() -> None:
    stamp = VENV / "ready"
    made_from = f"{PACKAGES}\n{REQUIREMENTS.read_text()}"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    print("Setting up benchmarks/.venv with the peers.", flush=True)
    venv.create(VENV, clear=True, with_pip=True)
    python = VENV / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
    packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    # `addsitedir`, not a bare path, so that editable installs are seen as well.
    line = f"import site; site.addsitedir({PACKAGES!r})\n"
    Path(packages, "project.pth").write_text(line)
    stamp.write_text(made_from)


if __name__ == "__main__":
    main()
