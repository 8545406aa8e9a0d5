"""The page of an evaluation of probabilities from a file."""

from __future__ import annotations

import re

import pytest
from tests.unit.application.probability_world import ProbabilityWorld

from finetune.adapters.reports.html import HtmlReport


@pytest.fixture(scope="module")
def page():
    world = ProbabilityWorld(report=HtmlReport())
    world.calibrate(world.add("cal.csv", 1500), calibration={"map": "auto"})
    world.evaluate(world.add("test<1>.csv", 400))
    return world.stores.files["out/evaluation.html"]


def test_it_speaks_of_cases_and_of_no_model(page):
    text = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    assert "message" not in text.lower()
    assert "400 test cases" in text
    assert "not known; its probabilities were calibrated from cal.csv" in text
    assert (
        "Probabilities in <code>test&lt;1&gt;.csv</code> under the certificate of <code>cal.csv</code>"
        in text
    )


def test_it_says_which_map_was_chosen(page):
    assert "temperature" in page
    assert re.search(r"chosen from \d by cross-validation", page)


def test_it_has_no_costs_where_none_were_given(page):
    assert "Cost per" not in page
    assert "cost table" not in page
