"""What holds for every test: no network, no time limits on a shared machine, no chance in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# These need the peers' environment: `make test-crosscheck` runs them there, with settings of their own.
collect_ignore = ["crosscheck"]

settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # In CI the same examples every time; elsewhere new ones, to find what these miss.
    derandomize="CI" in os.environ,
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with banking77/ and clinc150/: $FINETUNE_DATA, or shared/data beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FINETUNE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; set FINETUNE_DATA to their folder")
    return folder
