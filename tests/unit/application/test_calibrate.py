import numpy as np
import pytest
from tests.fake_models import as_scores, posterior
from tests.unit.application.world import make_world

from finetune.application.certificate import read_certificate
from finetune.application.decision_rule import certified_rule
from finetune.application.labels_file import LabelsFile
from finetune.application.scored_rows import ScoredRows, halves
from finetune.domain.checks import log_softmax
from finetune.domain.errors import (
    InfeasibleGuarantee,
    InsufficientData,
    IntegrityError,
    InvalidInput,
)


def true_rates(world, certificate, n=4000):
    """Exact expected coverage and error among answered over fresh texts: no labels are drawn."""
    outcomes = certificate.outcomes
    p = np.array([posterior(f"fresh {i}", len(outcomes)) for i in range(n)])
    p /= p.sum(axis=1, keepdims=True)
    logits = log_softmax(world.models.sharpness * np.log(p))
    rulings = certified_rule(certificate).apply(as_scores(logits))
    answered = rulings.answered
    right = p[np.arange(n), np.minimum(rulings.proposals, len(outcomes) - 1)]
    error = (1 - right[answered]).mean() if answered.any() else 0.0
    return (p * rulings.sets).sum(axis=1).mean(), error, answered.mean()


def test_temperature_undoes_the_overconfidence_of_the_model():
    certificate = make_world(sharpness=2.0).calibrate()
    assert certificate.map.parameters["value"] == pytest.approx(2.0, abs=0.25)
    assert certificate.map.log_loss_after < certificate.map.log_loss_before


def test_guarantees_hold_for_the_known_posterior():
    """Over draws of calibration rows: coverage on average, error with a probability of at least 1 - delta."""
    level, draws = 0.08, 40
    coverage, errors, answered = [], [], []
    for seed in range(draws):
        world = make_world(
            seed,
            abstention=False,
            sizes={"validation": 100, "calibration": 600, "test": 1},
            risk={"level": level, "delta": 0.1},
        )
        costs = world.labels.costs.model_copy(update={"abstain": 0.9})
        certificate = world.calibrate(labels=world.labels.model_copy(update={"costs": costs}))
        found = true_rates(world, certificate, n=1500)
        coverage.append(found[0])
        errors.append(found[1])
        answered.append(found[2])
        if seed < 3:
            risk = certificate.selective.model_copy(update={"threshold": None})
            everything = certificate.model_copy(update={"selective": risk})
            assert true_rates(world, everything, n=1500)[1] > level, (
                "without a threshold the bound would break"
            )
    # Mean of 40 draws of Beta(271, 30): its standard error is 0.003; 1,500 texts add 0.003.
    assert np.mean(coverage) == pytest.approx(271 / 301, abs=0.015)
    assert sum(error > level for error in errors) <= 9  # P(Bin(40, 0.1) > 9) = 0.005
    assert np.mean(answered) > 0.5, "the bound is not met by answering nothing"


@pytest.mark.parametrize("abstention", [True, False])
def test_the_written_certificate_is_the_returned_one(abstention):
    world = make_world(abstention=abstention)
    certificate = world.calibrate()
    read = read_certificate(world.run.read_json("calibration.json"), "x")
    assert read == certificate
    assert read.hash == certificate.hash
    assert certificate.outcomes[-1] == ("abstain" if abstention else "card_lost")
    world.run.verify("adapter", "calibration.json", "README.md", "scores_calibration.jsonl")


def test_the_counts_are_those_of_the_halves_and_the_rule_reproduces_them():
    world = make_world(sizes={"calibration": 801})
    certificate = world.calibrate()
    assert certificate.data.conformal_rows == certificate.conformal.n == 401
    assert certificate.data.selective_rows == certificate.selective.n == 400
    assert certificate.selective.errors <= certificate.selective.answered <= 400
    assert certificate.selective.upper_bound <= world.config.risk.level
    rows = list(world.run.read_rows("scores_calibration.jsonl"))
    assert len(rows) == 801
    assert set(rows[0]) == {"id", "label", "log_probabilities", "label_mass", "removed_chars", "left_out"}


def test_calibrating_twice_gives_the_same_certificate():
    world = make_world()
    assert world.calibrate() == world.calibrate()


def test_five_calibration_rows_give_whole_sets_and_no_promise_of_an_error():
    world = make_world(sizes={"calibration": 5})
    with pytest.raises(InfeasibleGuarantee, match=r"risk\.on_infeasible=abstain") as caught:
        world.calibrate()
    assert f"at least {caught.value.needed} such rows are needed" in caught.value.remedy
    assert caught.value.needed >= 22
    assert not world.run.exists("calibration.json")


def test_five_calibration_rows_hand_everything_over_where_that_is_asked_for():
    world = make_world(sizes={"calibration": 5}, risk={"on_infeasible": "abstain"})
    certificate = world.calibrate()
    assert certificate.conformal.covers_everything
    assert certificate.conformal.threshold is None
    assert "tells nothing" in certificate.conformal.statement
    assert not certificate.selective.feasible
    assert "every message is handed to a person" in certificate.selective.statement
    coverage, _, answered = true_rates(make_world(), certificate, n=50)
    assert answered == 0.0
    assert coverage == pytest.approx(1.0)


def test_one_calibration_row_is_refused():
    with pytest.raises(InsufficientData, match="at least two rows"):
        make_world(sizes={"calibration": 1}).calibrate()


def test_without_validation_rows_the_temperature_stays_one():
    certificate = make_world(sizes={"validation": 0}).calibrate()
    assert certificate.map.kind == "identity"
    assert "no validation rows" in certificate.map.note


def test_a_temperature_that_the_rows_do_not_determine_stays_one():
    world = make_world()
    rows = [
        row
        for row in world.prepared.read_rows("validation.jsonl")
        if row["label"] == max(row["metadata"]["posterior"], key=row["metadata"]["posterior"].get)
    ]
    world.rewrite("validation", rows)
    certificate = world.calibrate()
    assert certificate.map.kind == "identity"
    assert "determine no temperature" in certificate.map.note


def test_costs_may_change_after_training():
    world = make_world()
    dearer = world.labels.model_copy(
        update={"costs": world.labels.costs.model_copy(update={"abstain": 0.01})}
    )
    before, after = world.calibrate(), world.calibrate(labels=dearer)
    assert after.costs.abstain == 0.01
    assert after.selective.answered < before.selective.answered


def test_a_run_that_was_not_trained_is_refused():
    world = make_world()
    for key in [key for key in world.stores.files if "adapter" in key]:
        del world.stores.files[key]
    with pytest.raises(InvalidInput, match="finetune train"):
        world.calibrate()


def test_a_changed_adapter_is_refused():
    world = make_world()
    world.run.write_text("adapter/adapter_model.safetensors", "other weights")
    with pytest.raises(IntegrityError):
        world.calibrate()


def test_only_the_rows_that_the_run_was_trained_beside_are_accepted():
    world = make_world()
    made_for = world.prepared.read_json("manifest.json")["made_for"]
    world.prepared.seal({"made_for": made_for, "note": "the same rows, prepared again"})
    world.with_config(risk={"on_infeasible": "abstain"}).calibrate()
    rows = list(world.prepared.read_rows("calibration.jsonl"))
    world.prepared.write_examples("calibration.jsonl", rows[1:])
    world.prepared.seal({"made_for": made_for})
    with pytest.raises(IntegrityError, match="not those that the run was trained on"):
        world.calibrate()


def test_progress_counts_every_row():
    world = make_world(sizes={"validation": 7, "calibration": 200})
    world.with_config(risk={"on_infeasible": "abstain"}).calibrate()
    assert [(task.total, task.done) for task in world.progress.tasks] == [
        (7, 7),
        (200, 200),
        (16, 16),  # those that are scored alone, to compare
    ]


@pytest.mark.parametrize("seed", range(20))
def test_copies_of_a_text_are_divided_between_the_halves(seed):
    """Pinned rows may repeat a text: all of them in one half would be one draw, counted many times."""
    texts = ["the same text"] * 30 + [f"text {i}" for i in range(30)]
    rows = ScoredRows(
        [f"r{i}" for i in range(len(texts))],
        np.zeros(60, dtype=np.int64),
        as_scores(np.full((60, 2), np.log(0.5))),
    )
    copies = [sum(texts[int(name[1:])] == texts[0] for name in half.ids) for half in halves(rows, seed)]
    assert min(copies) >= 5  # hypergeometric: 4 or fewer has a probability of 1e-8


def test_calibrating_again_takes_what_was_measured_away():
    world = make_world(sizes={"test": 20})
    world.calibrate()
    world.evaluate()
    world.calibrate()
    for name in ("evaluation.json", "report.html", "scores_test.jsonl"):
        assert not world.run.exists(name)
    assert "The run was not evaluated" in world.run.files[str(world.config.run_folder / "README.md")]
    world.run.verify()


def test_costs_of_an_abstention_that_was_dropped_are_dropped_as_well():
    world = make_world(abstention=False)
    described = world.labels.model_dump(mode="json") | {
        "abstain": {"description": "not decidable"},
        "costs": {"pairs": {"abstain": {"card": 5.0}, "card": {"abstain": 0.1}}},
    }
    certificate = world.calibrate(labels=LabelsFile.model_validate(described))
    assert certificate.costs.pairs == {"card": {"abstain": 0.1}}


def test_sets_of_aps_that_hold_everything_say_the_right_cause():
    world = make_world(
        abstention=False, names=("yes", "no"), conformal={"method": "aps", "alpha": 0.01}, sizes={"test": 50}
    )
    sets = world.calibrate().conformal
    assert sets.covers_everything
    assert sets.rank <= sets.n
    assert (sets.expected_coverage, sets.coverage_low, sets.coverage_high) == (1.0, 1.0, 1.0)
    assert "With 600 rows" not in sets.statement
    assert "least likely" in sets.statement
    assert "conformal.method: lac" in sets.statement
    document = world.evaluate().document()
    assert document["coverage"]["expected"] == document["coverage"]["band"]["low"] == 1.0
    assert document["coverage"]["inside"]
    [said] = [finding["text"] for finding in document["summary"] if finding["topic"] == "sets"]
    assert said == sets.statement


def test_how_batches_run_is_said():
    world = make_world(sizes={"calibration": 50})
    world.with_config(risk={"on_infeasible": "abstain"}).calibrate()
    assert "Batches are not needed." in world.progress.said


def test_what_scores_leave_out_is_kept_with_them():
    world = make_world(sizes={"calibration": 50}, risk={"on_infeasible": "abstain"})
    world.models.left_out = 2e-7
    assert world.calibrate().model.prune == world.config.prediction.prune == 1e-6
    assert {row["left_out"] for row in world.run.read_rows("scores_calibration.jsonl")} == {2e-7}
