from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.fakes import FakeSource, MemorySinks
from tests.unit.application.world import make_world

from finetune.application.config import Columns
from finetune.application.predict import Predict
from finetune.domain.errors import IntegrityError, InvalidInput
from finetune.domain.examples import content_id

INPUT, OUTPUT = Path("in/rows.jsonl"), Path("out/decisions.jsonl")
ROWS = [
    *({"id": f"r{i}", "text": f"question number {i}"} for i in range(60)),
    "a broken line",
    {"id": "empty", "text": "  "},
    {"text": "no id here"},
    {"text": "no id here"},
    {"id": "null", "text": None},
    {"id": "last", "text": "the last one"},
]


@dataclass
class Desk:
    world: object
    rows: list = field(default_factory=lambda: ROWS)
    sinks: MemorySinks = field(default_factory=MemorySinks)

    def __post_init__(self):
        self.world.stores(INPUT.parent).write_text(INPUT.name, repr(self.rows))

    @property
    def predict(self):
        world = self.world
        source = FakeSource({str(INPUT): self.rows})
        return Predict(world.models, world.stores, source, self.sinks, world.progress)

    def text(self, texts, **options):
        return self.predict.text(self.world.config, texts, **options)

    def file(self, **options):
        return self.predict.file(self.world.config, INPUT, OUTPUT, **options)


@pytest.fixture
def desk():
    world = make_world(sizes={"test": 1})
    world.calibrate()
    return Desk(world.with_config(prediction={"batch_size": 1}))


def test_every_row_gives_one_record_in_order(desk):
    report = desk.file()
    records = desk.sinks.finished[OUTPUT]
    plain = content_id("no id here", None)
    expected = [f"r{i}" for i in range(60)]
    expected += [f"{INPUT}:61", "empty", plain, f"{plain}-2", "null", "last"]
    assert [record.id for record in records] == expected
    assert report.rows == len(ROWS)
    assert report.answered + sum(report.abstentions.values()) == len(ROWS)
    assert 0 < report.answered < len(ROWS)


def test_rows_that_cannot_be_decided_on_are_errors_with_their_place(desk):
    report = desk.file()
    records = {record.id: record for record in desk.sinks.finished[OUTPUT]}
    for reject in report.rejects:
        assert records[reject.id].abstain_reason == "error"
        assert records[reject.id].probabilities == {}
        assert records[reject.id].guarantee is None
    assert [reject.position for reject in report.rejects] == [f"{INPUT}:{i}" for i in (61, 62, 65)]
    assert f"{INPUT}:62: the text is empty" in desk.world.progress.said
    assert report.document()["rejects"][1]["problem"] == "the text is empty"


def test_progress_counts_every_row_once(desk):
    desk.file()
    task = desk.world.progress.tasks[-1]
    assert (task.total, task.done) == (len(ROWS), len(ROWS))


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_an_interrupted_file_is_continued_to_the_same_records(desk, interrupted_after):
    whole = Desk(desk.world)
    whole.file()

    class InterruptedWorkError(Exception):
        pass

    real, written = MemorySinks.__call__, []

    def failing(self, path, key):
        sink = real(self, path, key)
        write = sink.write

        def once(records):
            if len(written) == interrupted_after:
                raise InterruptedWorkError
            written.append(1)
            write(records)

        sink.write = once
        return sink

    class FailingSinks(MemorySinks):
        __call__ = failing

    broken = Desk(desk.world, sinks=FailingSinks())
    with pytest.raises(InterruptedWorkError):
        broken.file()
    resumed = Desk(desk.world, sinks=MemorySinks(partial=broken.sinks.partial))
    report = resumed.file()
    assert report.continued == interrupted_after * 16
    assert resumed.sinks.finished == whole.sinks.finished
    assert len(report.rejects) == 3
    assert sum(desk.world.models.opened[-1].scorer.calls) == 63 - min(report.continued, 60)


def test_another_certificate_does_not_continue_the_work(desk):
    keys = []

    class Keys(MemorySinks):
        def __call__(self, path, key):
            keys.append(key)
            return super().__call__(path, key)

    Desk(desk.world, sinks=Keys()).file()
    Desk(desk.world, sinks=Keys()).file(rationale=True)
    Desk(desk.world, sinks=Keys()).file(columns=Columns(id=None))
    Desk(desk.world, rows=ROWS[:9], sinks=Keys()).file()
    desk.world.with_config(risk={"level": 0.2}).calibrate()
    Desk(desk.world, sinks=Keys()).file()
    assert len(set(keys)) == 5


def test_a_rationale_never_changes_a_decision(desk):
    texts = [f"question {i}" for i in range(80)]
    without, with_one = desk.text(texts, rationale=False), desk.text(texts, rationale=True)
    assert [record.rationale for record in without] == [None] * 80
    assert [record.model_copy(update={"rationale": None}) for record in with_one] == without
    for record in with_one:
        written = record.abstain_reason in ("none", "model_abstained")
        assert record.rationale == (f"because it reads like {record.decision}" if written else None)
    assert {"none", "model_abstained"} < {record.abstain_reason for record in with_one}


def test_rationales_follow_the_configuration_where_nothing_else_is_said(desk):
    desk.world = desk.world.with_config(prediction={"rationale": True})
    assert any(record.rationale for record in desk.text([f"question {i}" for i in range(20)]))


def test_a_record_holds_what_stands_behind_it(desk):
    certificate = desk.world.run.read_json("calibration.json")
    for record in desk.text([f"question {i}" for i in range(40)]):
        kind = "split_conformal" if record.abstain else "selective_risk"
        assert record.guarantee.kind == kind
        assert record.model.config_hash == certificate["config_hash"]
        assert set(record.probabilities) == set(certificate["outcomes"])
        if not record.abstain:
            assert record.confidence == pytest.approx(record.probabilities[record.decision])
            assert record.confidence >= certificate["selective"]["confidence"] - 1e-12


def test_a_record_says_what_its_scores_leave_out(desk):
    desk.world.models.left_out = 3e-7
    assert {record.left_out for record in desk.text(["one", "two"])} == {3e-7}
    assert desk.text([" "])[0].left_out is None


def test_how_batches_run_is_said(desk):
    desk.text(["one"])
    assert desk.world.progress.said[-1] == "Batches are not needed."
    desk.file()
    assert desk.world.progress.said.count("Batches are not needed.") >= 2


def test_another_pruning_than_at_calibration_is_refused(desk):
    with pytest.raises(IntegrityError, match=r"another prediction\.prune"):
        Desk(desk.world.with_config(prediction={"prune": 1e-3})).text(["a text"])


def test_records_do_not_depend_on_the_other_texts(desk):
    texts = [f"question {i}" for i in range(12)]
    assert [desk.text([text])[0] for text in texts] == desk.text(texts)


def test_too_long_texts_are_handed_over_with_the_reason(desk):
    desk.world.models.max_chars = 50
    desk.world = desk.world.with_config(data={"max_text_chars": 100})
    shortened, refused, fine = desk.text(["x " * 40, "y" * 101, "short"])
    assert shortened.abstain_reason == refused.abstain_reason == "too_long"
    assert shortened.probabilities
    assert not refused.probabilities
    assert fine.abstain_reason != "too_long"
    assert any("101 characters" in line for line in desk.world.progress.said)


def test_lone_surrogates_are_errors_and_the_record_can_be_written(desk):
    (record,) = desk.text(["bad \ud800 text"])
    assert record.abstain_reason == "error"
    record.to_json().encode("utf-8")


def test_no_texts_give_no_records(desk):
    assert desk.text([]) == []


def test_without_a_certificate_nothing_is_decided():
    with pytest.raises(InvalidInput, match="finetune calibrate"):
        Desk(make_world()).text(["a"])


@pytest.mark.parametrize(
    ("change", "name"),
    [({"weights": "w2"}, "base model"), ({"adapter_weights": "a2"}, "adapter")],
)
def test_another_model_is_refused(desk, change, name):
    desk.world = replace(desk.world, models=replace(desk.world.models, **change))
    with pytest.raises(IntegrityError, match=f"another {name}"):
        desk.text(["a"])


def test_another_prompt_is_refused(desk):
    desk.world = desk.world.with_config(prompt={"system": "Do as you like."})
    with pytest.raises(IntegrityError, match="another prompt"):
        desk.text(["a"])


def test_other_labels_are_refused(desk):
    document = desk.world.run.read_yaml("labels.yaml")
    document["labels"][0]["description"] = "something new"
    desk.world.run.write_yaml("labels.yaml", document)
    with pytest.raises(IntegrityError):
        desk.text(["a"])


def test_a_certificate_that_was_edited_is_refused(desk):
    document = desk.world.run.read_json("calibration.json")
    document["selective"]["threshold"] = -5.0
    desk.world.run.write_json("calibration.json", document)
    with pytest.raises(IntegrityError):
        desk.text(["a"])


@pytest.mark.parametrize(
    ("change", "named"),
    [({"max_length": 99}, "tokeniser or maximum length"), ({"bf16": True}, "numerical precision")],
)
def test_other_lengths_and_precisions_than_at_calibration_are_refused(desk, change, named):
    with pytest.raises(IntegrityError, match=f"another {named}"):
        Desk(desk.world.with_config(training=change)).text(["a text"])


def test_texts_are_not_overwritten_by_decisions(desk):
    with pytest.raises(InvalidInput, match="written over the file"):
        desk.predict.file(desk.world.config, Path("in.csv"), Path("./in.csv"))
