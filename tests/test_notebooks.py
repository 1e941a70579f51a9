"""The rules that every notebook keeps, and the proof that nbval catches a page that is out of date.

nbval runs every cell again and compares its outputs. It passes in silence over what was never
run, over cells that ask for it, and over the pixels of pictures: those holes are closed here.
"""

import ast
import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import nbconvert
import nbformat
import pytest
from nbval.plugin import find_comment_markers, find_metadata_tags

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"
LARGEST_PAGE = 1_000_000  # bytes
LONGEST_CELL = 15  # lines that are not blank: the network's class, written out

# Cells whose outputs nbval does not compare, as (notebook, reason). Each says in a comment of its
# own, `# not compared: <reason>`, why it cannot be.
EXEMPT: list[tuple[str, str]] = []

every_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix()
)


@cache
def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path):
    return [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]


def output_texts(cell):
    """Return all that a cell put on the page, pictures' bytes left out."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append(output.text)
        elif output.output_type == "error":
            found += [output.evalue, *output.traceback]
        else:
            found += [str(value) for kind, value in output.data.items() if kind != "image/png"]
    return [re.sub(r"data:image/[\w+]+;base64,[\w+/=]+", "", text) for text in found]


class Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.alts = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.alts.append(dict(attrs).get("alt") or "")


def alt_texts(html):
    parser = Images()
    parser.feed(html)
    return parser.alts


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_every_code_cell_was_run_in_order_from_a_fresh_kernel(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_what_a_cell_prints_or_shows_is_stored(path):
    for cell in code_cells(path):
        called = {
            ast.unparse(statement.value.func)
            for statement in parsed(cell).body
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        }
        if called & {"print", "show", "explore_window", "explore_digit"}:
            assert cell.outputs, f"the output is gone:\n{cell.source}"


def parsed(cell):
    """Return the cell as Python, its `%` lines left out."""
    lines = (re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in cell.source.splitlines())
    return ast.parse("\n".join(lines))


@every_notebook
def test_cells_are_short(path):
    lengths = {
        cell.source: sum(1 for line in cell.source.splitlines() if line.strip())
        for cell in code_cells(path)
    }
    long = [source for source, lines in lengths.items() if lines > LONGEST_CELL]
    assert long == []
    assert [source for source in lengths if not source.strip()] == []


def test_cells_that_nbval_does_not_compare_are_few_and_say_why():
    found = []
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            options = {
                **dict(find_comment_markers(cell.source)),
                **dict(find_metadata_tags(cell.metadata)),
            }
            if options.get("skip") or options.get("check") is False:
                reason = re.search(r"# not compared: (.+)", cell.source)
                assert reason, f"{path.name}: says not why it is exempt:\n{cell.source}"
                found.append((path.relative_to(ROOT / "notebooks").as_posix(), reason[1]))
    assert found == EXEMPT


@every_notebook
@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("an address", r"\b0x[0-9a-fA-F]{4,}"),
        (
            "a path",
            r"(?<![\w.:/])/(home|tmp|root|usr|opt|work|var|mnt|Users)/|[A-Z]:\\|site-packages",
        ),
        ("a date", r"\b20\d\d-\d\d-\d\d\b|\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} +\d"),
        ("a time of day", r"\b\d\d:\d\d:\d\d\b"),
        ("a line number", r"(?<!blitz_helpers/network)\.py:\d+|\.py\", line \d+"),
        ("a figure without words", r"<Figure size"),
    ],
)
def test_no_output_differs_from_run_to_run(path, what, pattern):
    found = [
        match[0]
        for cell in code_cells(path)
        for text in output_texts(cell)
        for match in re.finditer(pattern, text)
    ]
    assert found == [], f"{what} in the outputs"


@every_notebook
def test_every_picture_has_words_that_nbval_compares(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            assert notebooks_command().WIDGET not in data, "it needs a kernel to be seen"
            bare = any(kind.startswith("image/") for kind in data) and "text/html" not in data
            assert not bare, f"use show(ax):\n{cell.source}"
            alts = alt_texts(data.get("text/html", ""))
            assert all(alt.strip() for alt in alts), f"no alt text:\n{cell.source}"
    for source in markdown(path):
        assert all(alt.strip() for alt in alt_texts(source))
        assert "![](" not in source


def test_sanitizing_hides_nothing_but_the_bytes_of_pictures_and_that_a_file_was_there():
    rules = re.findall(r"^regex: (.+)\nreplace: ", SANITIZE.read_text("utf-8"), re.MULTILINE)
    assert rules
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            written = re.match(r"%%writefile (\S+)\n", cell.source)
            if written:
                assert output_texts(cell) == [f"Writing {written[1]}\n"]
                continue
            for text in output_texts(cell):
                assert not any(re.search(rule, text) for rule in rules)


@every_notebook
def test_metadata_is_what_make_notebooks_writes(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec == notebooks_command().KERNEL
    # All that front ends fill in: with less, they mark a page as changed when it is opened.
    assert notebook.metadata.language_info.keys() == {
        *("codemirror_mode", "file_extension", "mimetype", "name"),
        *("nbconvert_exporter", "pygments_lexer", "version"),
    }
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags"}
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@cache
def notebooks_command():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / ".ci" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_notebook
def test_the_first_code_cell_shortens_errors(path):
    first = code_cells(path)[0]
    assert first.source == notebooks_command().SET_UP
    assert first.outputs == []
    assert all(len(line) <= 80 for line in first.source.splitlines())


LINE_SHOWN = re.compile(r"^(?:-+>)? *(\d+) (.+)$", re.MULTILINE)


def lines_shown(path):
    """Yield the lines of the package that stored tracebacks show: file, number and text."""
    for cell in code_cells(path):
        for output in cell.outputs:
            text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(output.get("traceback", ())))
            for frame in text.split("\nFile ")[1:]:
                file, _, shown = frame.partition(":")
                for number, line in LINE_SHOWN.findall(shown.partition("\n\n")[0]):
                    yield file, int(number), line.strip()


@every_notebook
def test_tracebacks_show_the_package_as_it_is(path):  # nbval compares only their messages
    for file, number, line in lines_shown(path):
        assert (ROOT / file).read_text().splitlines()[number - 1].strip() == line, (file, number)


def test_some_tracebacks_show_the_package():
    assert any(
        file == "blitz_helpers/network.py" for path in NOTEBOOKS for file, *_ in lines_shown(path)
    )


english = pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if path.parent.name == "notebooks"],
    ids=lambda path: path.name,
)


@english
def test_it_opens_with_what_you_need_will_be_able_to_do_and_how_long_it_takes(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {int(path.name[:2])}. ")
    for words in ("You need", "You will be able to", "minutes"):
        assert words in first.source


# A reader's pace: words and lines of code a minute, and seconds for a picture or a question.
WORDS, LINES, SECONDS = 200, 12, 20
LONGEST_MAIN_PATH = 26  # minutes


def main_path(path):
    """Return the cells up to "Going further" or the closing questions; the set-up cell left out."""
    cells = [cell for cell in read(path).cells if cell is not code_cells(path)[0]]
    for number, cell in enumerate(cells):
        if re.search(r"^## (Going further|Three questions)", cell.source, re.MULTILINE):
            return cells[:number]
    return cells


def minutes(path):
    """Return how long the main path of a page takes."""
    total = 0.0
    for cell in main_path(path):
        if cell.cell_type == "markdown":
            shown = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL)
            total += len(shown.split()) / WORDS
            total += (shown.count("?") + len(alt_texts(shown))) * SECONDS / 60
        else:
            total += sum(1 for line in cell.source.splitlines() if line.strip()) / LINES
            pictures = sum("<img" in text for text in output_texts(cell))
            total += pictures * SECONDS / 60
    return total


@english
def test_it_takes_as_long_as_it_says(path):
    announced = int(re.search(r"about (\d+) minutes", read(path).cells[0].source)[1])
    worked_out = minutes(path)
    assert announced == pytest.approx(worked_out, rel=0.2)
    assert worked_out <= LONGEST_MAIN_PATH


@english
def test_the_readme_says_how_long_it_takes(path):
    announced = re.search(r"about (\d+) minutes", read(path).cells[0].source)[1]
    (row,) = re.findall(rf"notebooks/{path.name}\).*", (ROOT / "README.md").read_text("utf-8"))
    assert row.endswith(f"| {announced} |")


@english
def test_it_closes_with_three_questions_and_a_link_onward(path):
    _, questions = "\n".join(markdown(path)).split("\n## Three questions\n")
    questions, _, after = questions.partition("\n## ")
    assert re.findall(r"^(\d)\. .+", questions, re.MULTILINE) == ["1", "2", "3"]
    answers = re.findall(r"^( *)<details><summary>Answer</summary>$", questions, re.MULTILINE)
    assert answers == 3 * ["   "], "each answer stands under its question, as part of the list"
    pages = [path.name for path in NOTEBOOKS if path.parent.name == "notebooks"]
    following = pages[(pages.index(path.name) + 1) % len(pages)]
    assert f"]({following})" in questions + after


@every_notebook
def test_links_lead_somewhere(path):
    for source in markdown(path):
        for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", source):
            address = urlparse(target[0] or target[1])
            if not address.scheme and address.path:
                assert (path.parent / unquote(address.path)).exists(), target


@every_notebook
def test_no_page_is_larger_than_a_browser_opens_at_once(path):
    assert path.stat().st_size < LARGEST_PAGE


@every_notebook
def test_an_export_to_latex_has_every_picture(path):
    page = nbformat.v4.new_notebook(cells=copy.deepcopy(code_cells(path)))
    for cell in page.cells:  # Markdown, in cells and outputs, needs a program beside Python
        cell.outputs = [
            each for each in cell.outputs if "text/markdown" not in each.get("data", {})
        ]
    latex, resources = nbconvert.LatexExporter().from_notebook_node(page)
    pictures = sum("<img" in text for cell in code_cells(path) for text in output_texts(cell))
    assert latex.count(r"\adjustimage{") == pictures
    assert len(resources["outputs"]) == pictures


def test_programs_that_a_page_has_written_are_not_collected(tmp_path):
    program = tmp_path / "notebooks" / "ranks_start.py"
    program.parent.mkdir()
    program.write_text("raise RuntimeError('collected')\n")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"),
            *("-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "--nbval", "notebooks"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout


# The proof that the net holds: one character of a page is changed, and nbval has to say so.

KINDS_OF_OUTPUT = {  # source of a cell, and what is changed in its stored output
    'print("loss", 0.25)': ("0.25", "0.26"),
    "6 * 7": ("42", "43"),
    'from blitz_helpers import Picture\n\nPicture("3 bars", b"", 10)': ("3 bars", "4 bars"),
    'from IPython.display import HTML\n\nHTML("<td>54</td>")': ("54", "64"),
    'raise ValueError("1x400 and 576x120")': ("1x400", "1x401"),
}


def change(path, cell_number, old, new):
    """Replace ``old`` wherever it stands in the stored outputs of one code cell."""
    notebook = nbformat.read(path, as_version=4)
    cell = [cell for cell in notebook.cells if cell.cell_type == "code"][cell_number]
    before = json.dumps(cell.outputs)
    assert old in before
    cell.outputs = [nbformat.from_dict(each) for each in json.loads(before.replace(old, new))]
    nbformat.write(notebook, path)


def cells_that_fail_under_nbval(*paths):
    """Return the number of each code cell that nbval reports, by notebook."""
    folder = paths[0].parent
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider"),
            *("-c", "pyproject.toml", f"--rootdir={folder}"),
            *(f"--junit-xml={folder / 'report.xml'}", *map(str, paths)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    assert cases, run.stdout
    failed = {path.name: [] for path in paths}
    for case in cases:
        if len(case):  # a failure, an error or a skip
            number = re.search(r"\d+$", case.get("name"))
            failed[case.get("classname").split(".")[0] + ".ipynb"].append(int(number[0]))
    return failed


def test_nbval_catches_one_changed_character_in_every_kind_of_output(tmp_path):
    notebook = nbformat.v4.new_notebook()
    for source in KINDS_OF_OUTPUT:
        tags = {"tags": ["raises-exception"]} if source.startswith("raise") else {}
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata=tags))
    untouched, changed = tmp_path / "untouched.ipynb", tmp_path / "changed.ipynb"
    nbformat.write(notebook, untouched)
    notebooks_command().execute(untouched)
    shutil.copy(untouched, changed)
    for number, (old, new) in enumerate(KINDS_OF_OUTPUT.values()):
        change(changed, number, old, new)

    failed = cells_that_fail_under_nbval(untouched, changed)

    assert failed == {
        "untouched.ipynb": [],
        "changed.ipynb": list(range(len(KINDS_OF_OUTPUT))),
    }


def test_a_page_that_writes_a_program_can_be_run_again_and_stores_the_same(tmp_path):
    page = tmp_path / "page.ipynb"
    cell = nbformat.v4.new_code_cell("%%writefile program.py\nprint(6 * 7)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), page)
    for _ in range(2):
        notebooks_command().execute(page)
        (cell,) = nbformat.read(page, as_version=4).cells
        assert output_texts(cell) == ["Writing program.py\n"]
    assert cells_that_fail_under_nbval(page) == {"page.ipynb": []}  # where it says "Overwriting"

    change(page, 0, "program.py", "another.py")
    assert cells_that_fail_under_nbval(page) == {"page.ipynb": [0]}


def test_nbval_catches_one_changed_number_in_a_copy_of_a_real_notebook(tmp_path):
    copy = Path(shutil.copy(ROOT / "notebooks" / "01_define_a_network.ipynb", tmp_path))
    outputs = [" ".join(output_texts(cell)) for cell in code_cells(copy)]
    (number,) = [number for number, text in enumerate(outputs) if "(10, 81194)" in text]
    change(copy, number, "81194", "81195")
    assert cells_that_fail_under_nbval(copy) == {copy.name: [number]}
