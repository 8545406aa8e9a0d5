import json
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.application.world import make_world

from finetune.application.measures import measure_calibration
from finetune.application.runs import known_posterior
from finetune.application.wording import percent
from finetune.domain.errors import InsufficientData, IntegrityError, InvalidInput, MissingExtra
from finetune.domain.examples import Example


@pytest.fixture(scope="module")
def evaluated():
    world = make_world()
    world.calibrate()
    return world, world.evaluate(base=True).document()


def test_the_document_is_json_without_nan_and_is_written(evaluated):
    world, document = evaluated
    assert json.loads(json.dumps(document, allow_nan=False)) == world.run.read_json("evaluation.json")
    assert world.run.exists("report.html")
    world.run.verify("evaluation.json", "report.html", "README.md", "scores_test.jsonl")


def test_counts_agree_with_one_another(evaluated):
    _, document = evaluated
    selective, n = document["selective"], document["test"]["rows"]
    assert n == 1000
    assert selective["answered"] + sum(entry["rows"] for entry in selective["abstentions"]) == n
    assert sum(entry["rows"] for entry in document["coverage"]["sizes"]) == n
    matrix = np.array(document["confusion"]["matrix"])
    columns = document["confusion"]["columns"]
    assert matrix.sum() == n
    assert matrix[:, columns.index("abstain")].sum() == n - selective["answered"]
    for part in ("before", "after"):
        assert sum(entry["count"] for entry in document["calibration"][part]["bins"]) == n
    wrong = sum(
        matrix[i, j]
        for i, truth in enumerate(document["confusion"]["rows"])
        for j, column in enumerate(columns)
        if column not in (truth, "abstain")
    )
    assert wrong == selective["errors"]
    worst = document["confusion"]["most_frequent"]
    assert 0 < sum(entry["rows"] for entry in worst) <= wrong
    assert "abstain" not in {entry["decision"] for entry in worst}


def test_coverage_is_told_apart_for_answered_and_handed_over_rows(evaluated):
    _, document = evaluated
    coverage, answered = document["coverage"], document["selective"]["answered"]
    parts = coverage["answered"]["value"] * answered, coverage["handed_over"]["value"] * (1000 - answered)
    assert sum(parts) == pytest.approx(coverage["covered"])
    assert coverage["handed_over"]["value"] < coverage["promised"] < coverage["answered"]["value"]
    [said] = [finding["text"] for finding in document["summary"] if finding["topic"] == "sets"]
    assert percent(coverage["handed_over"]["value"]) in said


def test_promises_are_measured_as_held(evaluated):
    _, document = evaluated
    assert document["coverage"]["inside"]
    assert document["selective"]["error"]["value"] <= document["selective"]["level"]
    verdicts = {finding["topic"]: finding["verdict"] for finding in document["summary"]}
    assert verdicts["answers"] == "held"
    assert verdicts["sets"] == "held"


def test_the_temperature_mends_what_the_model_claims(evaluated):
    _, document = evaluated
    before, after = document["calibration"]["before"]["ece"], document["calibration"]["after"]["ece"]
    assert before["value"] > before["null_high"]
    assert after["value"] < before["value"]
    assert document["log_loss"]["after"]["value"] < document["log_loss"]["before"]["value"]
    # The true posterior is what the temperature restores: nobody can do better than its entropy.
    assert document["log_loss"]["after"]["low"] < document["known_posterior"]["bayes_log_loss"]["high"]


def test_a_model_that_orders_by_the_posterior_reaches_all_of_the_bayes_accuracy(evaluated):
    _, document = evaluated
    assert document["known_posterior"]["share_reached"]["value"] == pytest.approx(1.0)
    accuracy, best = document["accuracy"], document["known_posterior"]["bayes_accuracy"]["value"]
    assert accuracy["low"] < best < accuracy["high"]


def test_the_rule_costs_no_more_than_always_or_never_answering(evaluated):
    _, document = evaluated
    cost = {name: part["value"] for name, part in document["cost"].items()}
    assert cost["rule"] < cost["always_answer"]
    assert cost["rule"] < cost["always_abstain"]


def test_the_base_model_is_scored_without_the_adapter(evaluated):
    world, document = evaluated
    assert document["base"]["accuracy"]["value"] == pytest.approx(document["accuracy"]["value"])
    assert document["base"]["log_loss"]["value"] > document["log_loss"]["after"]["value"]
    assert world.models.opened[-1].identity.adapter == ""


def test_evaluating_again_gives_the_same_document(evaluated):
    world, document = evaluated
    assert world.evaluate(base=True).document() == document


def test_the_risk_coverage_table_ends_with_everything_answered(evaluated):
    _, document = evaluated
    points = document["risk_coverage"]["points"]
    assert points[-1]["answered"] == 1000
    assert [point["share"] for point in points] == sorted(point["share"] for point in points)
    assert 0.0 < document["risk_coverage"]["aurc"] < points[-1]["error"]


def test_nothing_answered_is_not_estimable_and_never_zero():
    world = make_world(sizes={"calibration": 5, "test": 50}, risk={"on_infeasible": "abstain"})
    world.calibrate()
    document = world.evaluate().document()
    assert document["selective"]["answered"] == 0
    assert document["selective"]["error"] == {"value": None, "reason": "no message was answered"}
    assert document["coverage"]["answered"] == {"value": None, "reason": "no message was answered"}
    assert document["risk_coverage"]["operating"] is None
    assert document["base"] is None
    assert all(entry["precision"]["value"] is None for entry in document["confusion"]["per_label"][:-1])


def test_one_test_row_is_enough_for_a_document():
    world = make_world(sizes={"test": 1})
    world.calibrate()
    json.dumps(world.evaluate().document(), allow_nan=False)


def test_a_shifted_source_breaks_the_promise_and_the_summary_says_so():
    world = make_world()
    world.calibrate()
    rows = list(world.prepared.read_rows("test.jsonl"))
    for row in rows:
        worst = min(row["metadata"]["posterior"], key=row["metadata"]["posterior"].get)
        row |= {"label": worst, "metadata": {}}
    world.rewrite("test", rows)
    document = world.evaluate().document()
    verdicts = {finding["topic"]: finding["verdict"] for finding in document["summary"]}
    assert verdicts["answers"] == verdicts["sets"] == "broken"
    assert document["known_posterior"] is None


def test_the_numbers_are_kept_where_the_page_cannot_be_drawn():
    class NoReport:
        def render(self, evaluation):
            raise MissingExtra("report", "the HTML report")

    world = replace(make_world(sizes={"test": 20}), report=NoReport())
    world.calibrate()
    with pytest.raises(MissingExtra):
        world.evaluate()
    assert world.run.exists("evaluation.json")
    world.run.verify("evaluation.json")


def test_without_a_certificate_the_remedy_is_named():
    with pytest.raises(InvalidInput, match="finetune calibrate"):
        make_world().evaluate()


def test_without_test_rows_nothing_is_measured():
    world = make_world(sizes={"test": 0})
    world.calibrate()
    with pytest.raises(InsufficientData, match="no test rows"):
        world.evaluate()


def test_other_weights_are_refused():
    world = make_world(sizes={"test": 5})
    world.calibrate()
    world.models.adapter_weights = "others"
    with pytest.raises(IntegrityError, match="another adapter"):
        world.evaluate()


def test_other_calibration_rows_are_refused():
    world = make_world(sizes={"test": 5})
    world.calibrate()
    world.rewrite("calibration", list(world.prepared.read_rows("calibration.jsonl"))[1:])
    with pytest.raises(IntegrityError, match="not those of the certificate"):
        world.evaluate()


@pytest.mark.parametrize(
    "metadata",
    [{}, {"posterior": 0.5}, {"posterior": {"a": 1.0}}, {"posterior": {"a": "x", "b": 1}},
     {"posterior": {"a": 0.5, "b": 0.6}}, {"posterior": {"a": -0.5, "b": 1.5}}],
)  # fmt: skip
def test_a_column_that_is_no_posterior_is_not_taken_for_one(metadata):
    assert known_posterior([Example("1", "text", "a", metadata=metadata)], ("a", "b")) is None


def test_both_calibration_errors_rest_on_the_same_draws_of_rows():
    log_probs, truth = np.log(np.full((100, 2), 0.5)), np.arange(100) % 3 // 2
    errors = measure_calibration(log_probs, truth, np.random.default_rng(0))
    assert errors["ece"]["value"] == errors["mce"]["value"]  # all rows are in one bin
    assert (errors["ece"]["low"], errors["ece"]["high"]) == (errors["mce"]["low"], errors["mce"]["high"])


def test_what_scores_leave_out_is_said_where_there_is_any(evaluated):
    _, document = evaluated
    assert document["test"]["left_out"] == 0.0
    assert "left_out" not in {finding["topic"] for finding in document["summary"]}
    world = make_world(sizes={"test": 30})
    world.models.left_out = 4e-7
    world.calibrate()
    document = world.evaluate().document()
    assert document["test"]["left_out"] == 4e-7
    [said] = [finding for finding in document["summary"] if finding["topic"] == "left_out"]
    assert "by more than 4e-07" in said["text"]
    assert said["verdict"] == "info"
