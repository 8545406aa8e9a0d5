"""The domain in an environment that holds numpy, scipy, pydantic and nothing else."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, files
from pathlib import Path

import finetune

# What pip installs for these three, and no more.
DISTRIBUTIONS = (
    "numpy",
    "scipy",
    "pydantic",
    "pydantic_core",
    "annotated-types",
    "typing_extensions",
    "typing-inspection",
)
SCRIPT = """
import sys
import numpy as np
from finetune.domain import ConformalPredictor, RiskControlledPredictor, compute_ece

rng = np.random.default_rng(0)
probs = rng.dirichlet(np.ones(3), size=400)
labels = (probs.cumsum(axis=1) > rng.random((400, 1))).argmax(axis=1)
assert ConformalPredictor("aps").calibrate(probs, labels).predict(probs).shape == (400, 3)
assert set(RiskControlledPredictor().calibrate(probs, labels, risk_level=0.5).predict(probs)) <= {-1, 0, 1, 2}
assert 0 <= compute_ece(probs, labels) < 0.2
for name in ("torch", "yaml", "rich", "typer", "dependency_injector", "matplotlib"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported, so this environment is not clean")
print("clean")
"""


def test_the_domain_works_with_numpy_scipy_and_pydantic_alone(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    for name in DISTRIBUTIONS:
        root = Path(str(distribution(name).locate_file("")))
        for part in {file.parts[0] for file in files(name) or () if ".." not in file.parts}:
            target = site / part
            if not target.exists():
                target.symlink_to(root / part)
    (site / "finetune").symlink_to(Path(finetune.__file__).parent)
    # -I and -S: no PYTHONPATH, no user site, no site-packages of the environment that runs the tests.
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{SCRIPT}"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "clean\n", ended.stderr
