"""What works in an environment that holds no more than it needs."""

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

# What a base install adds for the command line.
COMMAND_LINE = (
    *DISTRIBUTIONS,
    "typer",
    "rich",
    "PyYAML",
    "dependency-injector",
    "annotated-doc",
    "shellingham",
    "markdown-it-py",
    "mdurl",
    "Pygments",
)
ANY_MODEL = """
import csv, json, os, sys
import numpy as np
os.chdir(sys.argv[1])
rng = np.random.default_rng(0)
for name, n in (("cal", 2000), ("test", 500)):
    logits = rng.normal(0, 2, (n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    np.savez(name + ".npz", probabilities=p, labels=truth, names=["a", "b", "c"])
    with open(name + ".csv", "w") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "a", "b", "c"])
        rows.writerows([f"{name}{i}", "abc"[truth[i]], *p[i]] for i in range(n))
from finetune.cli.main import app
def call(*words, code=0):
    try:
        app(list(words))
    except SystemExit as end:
        assert end.code == code, (words, end.code)
for suffix in (".csv", ".npz"):
    call("calibrate", "--probabilities", "cal" + suffix, "-s", "risk.level=0.2", "-q")
    call("evaluate", "--probabilities", "test" + suffix, "--no-report", "-q")
    call("predict", "--probabilities", "test" + suffix, "-o", "d.jsonl", "-q")
assert json.load(open("evaluation.json"))["test"]["rows"] == 500
call("evaluate", "--probabilities", "test.npz", "-q", code=8)
open("cal.parquet", "w").close()
call("calibrate", "--probabilities", "cal.parquet", "-q", code=8)
for name in ("torch", "transformers", "pandas", "pyarrow", "matplotlib", "jinja2"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported, so this environment is not clean")
print("clean")
"""


def test_the_domain_works_with_numpy_scipy_and_pydantic_alone(tmp_path):
    ended = run_with(DISTRIBUTIONS, SCRIPT, tmp_path)
    assert ended.stdout == "clean\n", ended.stderr


def test_probabilities_of_any_model_need_the_base_install_alone(tmp_path):
    ended = run_with(COMMAND_LINE, ANY_MODEL, tmp_path)
    assert ended.stdout == "clean\n", ended.stderr
    assert "pip install 'finetune-decisions[report]'" in ended.stderr
    assert "pip install 'finetune-decisions[parquet]'" in ended.stderr


def run_with(distributions, script, folder):
    """Run a script where nothing but these distributions and this package can be imported."""
    site = folder / "site"
    site.mkdir()
    for name in distributions:
        root = Path(str(distribution(name).locate_file("")))
        for part in {file.parts[0] for file in files(name) or () if ".." not in file.parts}:
            target = site / part
            if not target.exists():
                target.symlink_to(root / part)
    (site / "finetune").symlink_to(Path(finetune.__file__).parent)
    # -I and -S: no PYTHONPATH, no user site, no site-packages of the environment that runs the tests.
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{script}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
