import pytest
import yaml
from tests.unit.application.world import make_world

from finetune.application.config import ProjectConfig
from finetune.application.labels_file import LabelsFile
from finetune.application.model_card import render_model_card

TRAINING = {
    "steps": 1200, "epochs": 3.0, "best_step": 900, "best": {"log_loss": 0.41}, "trainable_parameters": 1000,
    "total_parameters": 1_000_000, "precision": "bfloat16", "shortened_texts": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def documents():
    world = make_world()
    world.calibrate()
    world.evaluate()
    return world, world.run.read_json("calibration.json"), world.run.read_json("evaluation.json")


def test_front_matter_is_what_the_hub_reads(documents):
    world, certificate, evaluation = documents
    card = render_model_card(
        world.config, world.labels, training=TRAINING, certificate=certificate, evaluation=evaluation
    )
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == "owner/base"
    assert front["library_name"] == "peft"
    assert "conformal-prediction" in front["tags"]


def test_it_tells_what_was_trained_promised_and_measured(documents):
    world, certificate, evaluation = documents
    card = render_model_card(
        world.config, world.labels, training=TRAINING, certificate=certificate, evaluation=evaluation
    )
    assert "1,200 (3)" in card
    assert certificate["selective"]["statement"] in card
    assert certificate["conformal"]["statement"] in card
    assert evaluation["summary"][0]["text"] in card
    assert 'PeftModel.from_pretrained(base, "adapter")' in card
    for limit in certificate["not_promised"]:
        assert limit in card


def test_what_was_not_done_is_said():
    world = make_world()
    card = render_model_card(world.config, world.labels)
    assert "the run was not calibrated" in card
    assert "The run was not evaluated" in card
    assert "No record of the training" in card


def test_a_local_base_model_is_no_hub_id():
    config = ProjectConfig.model_validate({"model_id": "./models/mine", "data": {"files": ["a.csv"]}})
    assert "base_model" not in render_model_card(config, make_world().labels).split("---")[1]


def test_labels_cannot_break_out_of_their_line():
    labels = LabelsFile.model_validate(
        {
            "task": "Sort <b>mail</b>\n# not a heading",
            "labels": [{"name": "a*b", "description": "x\n\n## y | [link](http://e)"}, {"name": "c"}],
        }
    )
    card = render_model_card(make_world().config, labels)
    assert "# Sort \\<b\\>mail\\</b\\> \\# not a heading" in card
    assert "- **a\\*b**: x \\#\\# y \\| \\[link\\](http://e)" in card.splitlines()


def test_hundreds_of_labels_are_cut_with_their_number():
    labels = LabelsFile.model_validate({"task": "t", "labels": [{"name": f"l{i}"} for i in range(77)]})
    assert "and 27 more" in render_model_card(make_world().config, labels)


def test_the_run_folder_gets_the_card_of_its_latest_state(documents):
    world, _, evaluation = documents
    assert evaluation["summary"][0]["text"] in world.run.files[str(world.config.run_folder / "README.md")]


def test_what_was_measured_under_another_certificate_is_left_out(documents):
    world, certificate, evaluation = documents
    other = certificate | {"created": "later"}
    for given in (other, None):
        card = render_model_card(world.config, world.labels, certificate=given, evaluation=evaluation)
        assert "The run was not evaluated" in card
        assert evaluation["summary"][0]["text"] not in card
