import pytest
from tests.contracts.scorer_contract import WRITER_CASES
from tests.fake_models import FakeWriter


@pytest.mark.parametrize("case", WRITER_CASES, ids=lambda case: case.__name__)
def test_fake_writer(case):
    case(FakeWriter(), ("billing", "card", "abstain"))
