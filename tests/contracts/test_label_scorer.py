import pytest
from tests.contracts.scorer_contract import SCORER_CASES
from tests.fake_models import FakeScorer


@pytest.mark.parametrize("case", SCORER_CASES, ids=lambda case: case.__name__)
def test_fake_scorer(case):
    case(FakeScorer(("billing", "card", "card_lost", "abstain")))
