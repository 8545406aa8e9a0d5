import builtins
import re
from html.parser import HTMLParser

import pytest
from tests.unit.application.world import make_world

from finetune.adapters.reports.html import REASONS, HtmlReport
from finetune.application.wording import percent
from finetune.domain.decisions import REASONS as ALL_REASONS
from finetune.domain.errors import MissingExtra

HOSTILE = ("<script>alert(1)</script>", "a & b \"q\" 'x' $\\frac{1}{2}$", "丢卡 🙈")


class Page(HTMLParser):
    """Collects elements, and checks that they nest."""

    VOID = ("meta", "br", "img", "path", "use", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def document_of(names=("billing", "card", "card_lost"), **options):
    world = make_world(names=names, **options)
    world.calibrate()
    return world.evaluate(base=True).document()


@pytest.fixture(scope="module")
def document():
    return document_of()


@pytest.fixture(scope="module")
def page(document):
    return HtmlReport().render(document)


def test_the_summary_comes_first_and_says_what_counts(document, page):
    text = page.replace("\N{NO-BREAK SPACE}", " ")
    said = text.index(document["summary"][0]["text"])
    assert said < text.index("What each number means")
    assert f"Of 1,000 test messages it answered {document['selective']['answered']}" in text
    for finding in document["summary"]:
        assert finding["text"] in text


def test_coverage_of_answered_and_handed_over_messages_stands_apart(document, page):
    text = page.replace("\N{NO-BREAK SPACE}", " ")
    for part in ("answered", "handed over"):
        value = document["coverage"][part.replace(" ", "_")]["value"]
        row = text[text.index(f"Truth on the shortlist, {part}") :].split("</tr>")[0]
        assert percent(value) in row


def test_nothing_is_loaded_from_outside_and_nothing_is_run(page):
    for tag, attributes in Page(page).elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", page)


def test_elements_nest_and_identifiers_are_unique(page):
    parsed = Page(page)
    assert parsed.open == []
    identifiers = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page))
    assert used <= set(identifiers)


def test_every_figure_has_a_name_and_a_text_beside_it(page):
    elements = Page(page).elements
    figures = [attributes for tag, attributes in elements if tag == "svg"]
    assert len(figures) == 3
    identifiers = {attributes.get("id") for _, attributes in elements}
    for attributes in figures:
        assert attributes["role"] == "img"
        assert attributes["aria-labelledby"] in identifiers
    assert page.count("<figcaption>") == 3
    assert page.count("The same as a table") == 2


def test_figures_take_the_colours_of_the_page(page):
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--accent)" in svg
    assert "#ffffff" not in svg
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", svg), "a stand-in colour is left"


def test_the_same_document_gives_the_same_page(document, page):
    assert HtmlReport().render(document) == page


def test_labels_are_text_whatever_they_hold():
    document = document_of(names=HOSTILE)
    document["task"] = "<img src=x onerror=alert(1)>"
    page = HtmlReport().render(document)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "丢卡 🙈" in page
    assert Page(page).open == []


def test_what_is_not_estimable_is_said_so():
    page = HtmlReport().render(
        document_of(sizes={"calibration": 5, "test": 30}, risk={"on_infeasible": "abstain"})
    )
    assert "no message was answered" in page
    assert not re.search(r"\bnan\b|\binf\b", page.lower())
    assert "every message is handed to a person" in page


def test_many_labels_leave_the_wide_table_out():
    names = tuple(f"label {i}" for i in range(40))
    page = HtmlReport().render(document_of(names=names, risk={"on_infeasible": "abstain"}))
    assert 'class="matrix"' not in page
    assert "evaluation.json" in page


def test_every_reason_has_words():
    assert set(REASONS) == set(ALL_REASONS) - {"none"}


def test_missing_packages_name_the_extra(document, monkeypatch):
    real = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(MissingExtra, match=r"finetune-decisions\[report\]"):
        HtmlReport().render(document)


def test_how_scores_are_made_stands_among_the_facts(document, page):
    assert "those that hold at most 1e-06 of the label mass" in page
    exact = document | {"model": document["model"] | {"prune": 0.0}}
    assert "of all outcomes to their ends" in HtmlReport().render(exact)
    assert "at most 0 on the probabilities of 16 rows" in page
