"""The remote backend against servers on loopback, with faults between the two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from tests.contracts.scorer_contract import SCORER_CASES
from tests.contracts.trainer_contract import TRAINER_CASES, Bench, other_rows_give_another_identity
from tests.integration.test_main_job import ENVIRONMENT, write_project
from tests.servers import FAULTS, FakeServer, serving
from tests.tiny_models import save_tiny

from finetune.application.config import ProjectConfig
from finetune.backends import open_backend
from finetune.domain.decisions import DecisionRecord
from finetune.domain.errors import IntegrityError, InvalidInput, Unavailable
from finetune.domain.examples import Example
from finetune.domain.labels import Abstention, Label, LabelSet
from finetune.domain.prompts import default_prompt

LABELS = LabelSet(
    "sort the mail",
    (Label("billing", "money"), Label("card"), Label("card_lost", "the card is gone")),
    Abstention("not decidable"),
)
PROTOCOLS = ("decisions", "systemone", "completions")
ROWS = [Example(f"{i}", f"message number {i}", LABELS.outcomes[i % 4]) for i in range(24)]


def bench_of(fake: FakeServer, folder: Path, **remote: object) -> Bench:
    settings = {"url": fake.url, "backoff": 0.01, "timeout": 1.0, **remote}
    config = ProjectConfig.model_validate(
        {"backend": "remote", "data": {"files": ["a.csv"]}, "remote": settings}
    )
    backend = open_backend("remote", str)
    return Bench(backend, config, LABELS, default_prompt(LABELS), ROWS, ROWS, folder / "run")


def expected(fake: FakeServer, texts: list[str]) -> np.ndarray:
    return np.log([fake.probabilities(text, len(LABELS.outcomes)) for text in texts])


@pytest.fixture(scope="module", params=PROTOCOLS)
def served(request, tmp_path_factory) -> Iterator[tuple[FakeServer, Bench]]:
    with serving(FakeServer(protocols=(request.param,))) as fake:
        yield fake, bench_of(fake, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("case", SCORER_CASES, ids=lambda case: case.__name__)
def test_scorer_contract(case, served):
    case(served[1].opened().scorer)


# Nothing is learnt from rows, so that other rows make no other model.
RECORDED = [case for case in TRAINER_CASES if case is not other_rows_give_another_identity]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case.__name__)
def test_trainer_contract(case, served, tmp_path):
    case(served[1], tmp_path)


def test_each_way_gives_the_probabilities_of_the_server(served):
    fake, bench = served
    texts = [row.text for row in ROWS]
    scores = bench.opened().scorer.score(texts)
    np.testing.assert_allclose(scores.log_probabilities, expected(fake, texts), atol=1e-6)
    assert bench.trained().path == fake.protocols[0]
    mass = {"decisions": 0.0, "systemone": np.log(0.9), "completions": -0.1}[fake.protocols[0]]
    np.testing.assert_allclose(scores.label_mass, mass, atol=1e-9)


def test_what_was_recorded_is_what_is_opened(served):
    first, second = served[1].opened(), served[1].opened()
    assert first.identity == second.identity
    assert first.writer is None
    assert [event for event, _ in served[1].log.events][:2] == ["started", "evaluation"]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_row_is_lost_or_doubled_by_a_fault(fault, served):
    fake, bench = served
    scorer = bench.opened().scorer
    texts = [f"{fault} {i}" for i in range(12)]
    fake.faults = [fault, fault]
    scores = scorer.score(texts)
    assert fake.faults == []
    np.testing.assert_allclose(scores.log_probabilities, expected(fake, texts), atol=1e-6)


def test_all_faults_at_once_are_survived(served):
    fake, bench = served
    scorer = bench.opened().scorer
    texts = [f"many {i}" for i in range(40)]
    fake.faults = [fault for fault in FAULTS if fault != "slow"] * 2
    scores = scorer.score(texts)
    np.testing.assert_allclose(scores.log_probabilities, expected(fake, texts), atol=1e-6)


def test_a_fault_that_stays_is_an_error_that_says_what_was_tried(served):
    fake, bench = served
    scorer = bench.opened().scorer
    fake.faults = ["500"] * 200
    try:
        with pytest.raises(Unavailable, match="5 attempts: status 500"):
            scorer.score(["one"])
    finally:
        fake.faults = []


def test_the_first_way_that_works_is_taken(tmp_path):
    with serving(FakeServer(protocols=("systemone", "completions"))) as fake:
        bench = bench_of(fake, tmp_path)
        assert bench.trained().path == "systemone"


def test_a_server_that_offers_nothing_is_refused_with_every_reason(tmp_path):
    with serving(FakeServer(protocols=())) as fake, pytest.raises(InvalidInput) as caught:
        bench_of(fake, tmp_path).trained()
    for path in ("/v1/decisions", "/v1/systemone", "/v1/completions"):
        assert f"{path}: there is no such endpoint" in str(caught.value)


def test_more_labels_than_a_server_takes_are_refused_with_its_words(tmp_path):
    with (
        serving(FakeServer(protocols=("systemone",), most_options=3)) as fake,
        pytest.raises(InvalidInput, match="reads at most 3 options, got 4"),
    ):
        bench_of(fake, tmp_path, protocol="systemone").trained()


def test_no_server_is_an_error_that_says_where(tmp_path):
    fake = FakeServer(url="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        bench_of(fake, tmp_path, attempts=2, model="tiny", protocol="decisions").trained()


def test_another_model_behind_the_same_address_is_noticed(served):
    fake, bench = served
    bench.opened()
    fake.tilt = 2.0
    try:
        with pytest.raises(IntegrityError, match="answers otherwise"):
            bench.opened()
    finally:
        fake.tilt = 1.0


def test_other_labels_are_not_opened(served):
    _, bench = served
    bench.trained()
    turned = LabelSet(LABELS.task, LABELS.labels[::-1], LABELS.abstention)
    with pytest.raises(IntegrityError, match="other labels"):
        bench.backend.models().open(bench.config, turned, bench.prompt, bench.folder / "adapter")


def test_the_key_is_sent_and_nowhere_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FINETUNE_API_KEY", "secret-of-the-house")
    with serving(FakeServer(protocols=("decisions",), key="secret-of-the-house")) as fake:
        bench = bench_of(fake, tmp_path)
        bench.opened().scorer.score(["one"])
        assert fake.headers[-1]["Authorization"] == "Bearer secret-of-the-house"
        monkeypatch.setenv("FINETUNE_API_KEY", "wrong-and-secret")
        with pytest.raises(InvalidInput, match="refuses the key") as caught:
            bench.opened()
    told = capfd.readouterr()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    for place in (str(caught.value), told.out, told.err, written, repr(bench.log.events)):
        assert "secret" not in place


def test_at_most_so_many_requests_run_at_a_time(tmp_path):
    with serving(FakeServer(protocols=("decisions",), delay=0.05)) as fake:
        scorer = bench_of(fake, tmp_path, concurrency=3).opened().scorer
        scorer.score([f"text {i}" for i in range(24)])
        assert fake.most_running == 3


# Through the command line ---------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetune", *arguments, "--set", "backend=remote"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def remote_project(folder: Path, url: str, rows: int = 200, model: str | None = None) -> Path:
    project = write_project(folder, rows)
    config = project / "configs" / "llm_lora.yaml"
    section = {"url": url, "model": model, "backoff": 0.01, "attempts": 3, "timeout": 30.0}
    config.write_text(config.read_text() + f"remote: {json.dumps(section)}\n")
    return project


def test_a_file_that_a_failing_server_interrupts_is_gone_on_with(tmp_path):
    with serving(FakeServer(protocols=("decisions",))) as fake:
        project = remote_project(tmp_path / "project", fake.url)
        for command in ("prepare", "train", "calibrate", "evaluate"):
            ended = run(project, command)
            assert ended.returncode == 0, ended.stderr
        rows = [{"id": f"{i}", "text": f"new message {i}"} for i in range(1500)]
        (project / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        predict = ("predict", "--input", "new.jsonl", "--output", "out.jsonl")
        before = len(fake.asked)
        fake.faults = ["none"] * 1200 + ["500"] * 400
        ended = run(project, *predict)
        assert ended.returncode == 9, ended.stderr
        assert "goes on where it stopped" in ended.stderr
        assert not (project / "out.jsonl").exists()
        fake.faults = []
        ended = run(project, *predict)
        assert ended.returncode == 0, ended.stderr
        assert len(fake.asked) - before < 2 * len(rows), "finished rows are not asked about again"
    records = [DecisionRecord.from_json(line) for line in (project / "out.jsonl").read_text().splitlines()]
    assert [record.id for record in records] == [row["id"] for row in rows]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def transformers_server(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """``transformers serve`` with a tiny model, as people start it."""
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    pytest.importorskip("uvicorn", reason="transformers[serving] is not installed")
    pytest.importorskip("openai", reason="transformers[serving] is not installed")
    folder, port = save_tiny("qwen2", tmp_path_factory.mktemp("served")), free_port()
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "serve", str(folder), "--port", str(port), "--device", "cpu"],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            try:
                if httpx2.get(f"{url}/health", timeout=1.0).status_code == 200:
                    break
            except httpx2.HTTPError:
                time.sleep(0.25)
        yield url, str(folder)
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_main_job_with_transformers_serve(transformers_server, tmp_path):
    url, model = transformers_server
    project = remote_project(tmp_path / "project", url, rows=160, model=model)
    for command in ("prepare", "train", "calibrate", "evaluate"):
        ended = run(project, command)
        assert ended.returncode == 0, ended.stderr
    assert "/v1/systemone" in (project / "artifacts/runs/small/training_metrics.json").read_text()
    ended = run(project, "predict", "--text", "I need a refill", "--json")
    assert ended.returncode == 0, ended.stderr
    record = DecisionRecord.from_json(ended.stdout.strip())
    assert sum(record.probabilities.values()) == pytest.approx(1.0)
