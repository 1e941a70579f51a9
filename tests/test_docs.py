"""The site has every page and public name, needs no other host, and no link of it is broken."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import blitz_helpers

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site from a copy, so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("site")
    for folder in ("docs", "notebooks", "imgs"):
        skipped = shutil.ignore_patterns("build", "api", "wandb", "notebooks", "imgs")
        shutil.copytree(ROOT / folder, copy / folder, ignore=skipped)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"),
            *(str(copy / "docs"), str(copy / "html")),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return copy / "html"


class Page(HTMLParser):
    """The addresses that a page names, the places that it has, and its pictures' alt texts."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.places, self.alts = [], [], set(), []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places |= {attributes[key] for key in ("id", "name") if key in attributes}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag in ("link", "script", "img", "iframe"):
            self.loaded += [attributes[key] for key in ("href", "src") if key in attributes]
        if tag == "img":
            self.alts.append(attributes.get("alt"))


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_and_every_public_name_is_there(site, pages):
    for name in PAGES:
        assert site / "notebooks" / f"{name}.html" in pages
    places = set().union(*(page.places for page in pages.values()))
    assert {f"blitz_helpers.{name}" for name in blitz_helpers.__all__} <= places


def test_no_link_leads_nowhere(pages):
    broken = [
        (path.name, link)
        for path, page in pages.items()
        for link in page.links
        if not leads_somewhere(path, link, pages)
    ]
    assert broken == []


def leads_somewhere(path, link, pages):
    address = urlparse(link)
    if address.scheme:
        return True  # another site's, which a test without network cannot try
    target = (path.parent / unquote(address.path)).resolve() if address.path else path
    if target not in pages:
        return target.exists()
    return not address.fragment or unquote(address.fragment) in pages[target].places


def test_nothing_is_loaded_from_another_host(pages):
    loaded = {link for page in pages.values() for link in page.loaded}
    assert [link for link in loaded if re.match(r"(https?:)?//", link)] == []


def test_every_picture_has_alt_text(pages):
    assert all(alt for page in pages.values() for alt in page.alts)


def test_answers_are_folded(site):
    for name in PAGES:
        html = (site / "notebooks" / f"{name}.html").read_text("utf-8")
        assert html.count("<details") == html.count("</details>") >= 3
