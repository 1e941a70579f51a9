"""The wheel and the sdist are whole: each is built, installed elsewhere, and works there."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import blitz_helpers

ROOT = Path(__file__).parents[1]
EXAMPLE = """
import blitz_helpers
assert "site-packages" in blitz_helpers.__file__, blitz_helpers.__file__
print(blitz_helpers.trace_shapes(blitz_helpers.Network(), (1, 1, 32, 32)).path())
blitz_helpers.plot_network  # loads a module of every kind
"""


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build the sdist, and the wheel from it, with what is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    _, wheel = distributions
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"blitz_helpers", f"blitz_helpers-{blitz_helpers.__version__}.dist-info"}
    packaged = {name for name in names if name.startswith("blitz_helpers/")}
    sources = (ROOT / "blitz_helpers").rglob("*")
    assert packaged == {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_it_installs_and_works_elsewhere(kind, distributions, tmp_path):
    file = distributions[kind == "wheel"]
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    python = environment / scripts / Path(sys.executable).name
    site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path
    ).strip()
    # torch and what builds the sdist are those of this environment, found behind what is new.
    (Path(site) / "behind.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install = [*(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps")]
    run(*install, "--no-build-isolation", "--ignore-installed", "-q", file, cwd=tmp_path)
    assert run(python, "-c", EXAMPLE, cwd=tmp_path).startswith("input -> conv2d -> relu")


def test_the_tests_of_an_unpacked_sdist_find_what_they_read(distributions, tmp_path):
    sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    # Those that read other folders; the rest needs the package alone.
    reading = ["tests/test_packaging.py", "tests/test_notebooks.py", "tests/test_architecture.py"]
    options = ["-q", "-p", "no:cacheprovider", "-k", "not nbval_catches and not import_loads"]
    run(sys.executable, "-m", "pytest", *options, *reading, cwd=unpacked)
