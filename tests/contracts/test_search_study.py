"""Every SearchStudy: one open trial at a time, nothing lost, and proposals that no restart changes."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from tests.fakes import MemoryStudies

from finetune.adapters.search.study import open_study
from finetune.application.ports import LogRange
from finetune.domain.errors import IntegrityError, InvalidInput

LISTS = {"lora.r": (8, 16), "objective.name": ("focal", "cross_entropy", "abstention")}
MIXED = {"training.learning_rate": LogRange(1e-4, 1e-2), **LISTS}
FACTS = {"metrics": {"log_loss": 0.5}, "failure": None}


@pytest.fixture(params=["optuna", "memory"])
def opener(request, tmp_path):
    """Opens the study of one folder anew at each call, as another process would."""
    studies = open_study if request.param == "optuna" else MemoryStudies()
    return lambda space=MIXED, direction="minimize", seed=1: studies(
        tmp_path / "study", space, direction, seed
    )


def loss(settings) -> float:
    return abs(math.log10(settings["training.learning_rate"]) + 3) + settings["lora.r"] / 100


def test_proposals_are_from_the_space(opener):
    study = opener()
    for _ in range(25):
        number, settings = study.ask()
        assert settings.keys() == MIXED.keys()
        rate = settings["training.learning_rate"]
        assert 1e-4 <= rate <= 1e-2
        assert rate == float(f"{rate:.3g}")
        assert settings["lora.r"] in (8, 16)
        assert settings["objective.name"] in LISTS["objective.name"]
        study.tell(number, loss(settings), FACTS)


def test_a_trial_is_open_until_it_is_told_and_survives_the_process(opener):
    study = opener()
    first = study.ask()
    assert first.number == 1
    assert study.ask() == first
    assert opener().ask() == first
    assert opener().finished() == ()
    opener().tell(1, 0.5, FACTS)
    assert [trial[:3] for trial in opener().finished()] == [(1, first.settings, 0.5)]
    assert opener().ask().number == 2


def test_what_was_told_is_there_in_order_with_its_facts(opener):
    study, told = opener(), []
    for value in (0.5, None, 0.25):
        number, settings = study.ask()
        study.tell(number, value, {"failure": None if value else "diverged"})
        told.append((number, settings, value, {"failure": None if value else "diverged"}))
    assert [tuple(trial) for trial in opener().finished()] == told


@pytest.mark.parametrize("space", [MIXED, LISTS])
def test_proposals_do_not_depend_on_restarts(opener, space, tmp_path, request):
    def run(open_again, folder_study):
        study, proposals = folder_study, []
        for position in range(14 if space is MIXED else 6):
            if open_again and position:
                study = opener(space)
            proposal = study.ask()
            if open_again:
                study = opener(space)
                assert study.ask() == proposal
            value = None if position % 5 == 4 else float(len(proposals) % 3)
            study.tell(proposal.number, value, FACTS)
            proposals.append(proposal)
        return proposals

    restarted = run(True, opener(space))
    kind = open_study if "optuna" in request.node.name else MemoryStudies()
    assert restarted == run(False, kind(tmp_path / "other", space, "minimize", 1))


def test_seeds_matter(opener, tmp_path, request):
    kind = open_study if "optuna" in request.node.name else MemoryStudies()
    assert opener().ask() != kind(tmp_path / "other", MIXED, "minimize", 2).ask()


def test_combinations_of_lists_come_once_each(opener):
    study, seen = opener(LISTS), []
    for _ in range(6):
        number, settings = study.ask()
        seen.append(tuple(settings.values()))
        study.tell(number, 1.0, FACTS)
    assert len(set(seen)) == 6
    with pytest.raises(InvalidInput, match="every combination"):
        opener(LISTS).ask()


def test_the_direction_is_kept(opener):
    opener().ask()
    with pytest.raises(IntegrityError, match="other direction"):
        opener(direction="maximize")


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_optuna_learns_from_what_it_is_told(direction, sign, tmp_path):
    study = open_study(tmp_path, {"a": LogRange(1e-6, 1.0)}, direction, 0)
    for _ in range(40):
        number, settings = study.ask()
        # Half of the range ends in failures, the best lies at its other end.
        failed = settings["a"] > 1e-3
        study.tell(number, None if failed else sign * math.log10(settings["a"]), FACTS)
    late = [trial.settings["a"] for trial in study.finished()[20:]]
    assert sorted(late)[len(late) // 2] < 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_the_first_trials_of_optuna_are_spread_evenly(seed, tmp_path):
    study, seen = open_study(tmp_path, MIXED, "minimize", seed), []
    for _ in range(10):
        number, settings = study.ask()
        seen.append(settings)
        study.tell(number, 0.5, FACTS)
    places = sorted((math.log10(settings["training.learning_rate"]) + 4) / 2 for settings in seen)
    gaps = [b - a for a, b in zip([0.0, *places], [*places, 1.0], strict=True)]
    assert max(gaps) < 0.25
    for key, values in LISTS.items():
        counts = [sum(settings[key] == value for settings in seen) for value in values]
        assert min(counts) >= 10 // len(values) - 1


def test_a_torn_last_line_costs_nothing_else(tmp_path):
    study = open_study(tmp_path, LISTS, "minimize", 0)
    study.tell(study.ask().number, 0.5, FACTS)
    told = study.finished()
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":4,"work')
    again = open_study(tmp_path, LISTS, "minimize", 0)
    assert again.finished() == told
    assert again.ask().number == 2
    assert open_study(tmp_path, LISTS, "minimize", 0).ask() == again.ask()


def test_a_proposal_that_a_kill_cut_short_is_made_again(tmp_path):
    whole = open_study(tmp_path / "whole", MIXED, "minimize", 0).ask()
    open_study(tmp_path / "cut", MIXED, "minimize", 0).ask()
    journal = tmp_path / "cut" / "journal.log"
    # Op codes: 4 creates a trial, 5 sets a parameter.
    lines = [line for line in journal.read_text().splitlines() if json.loads(line)["op_code"] != 5]
    journal.write_text("\n".join(lines) + "\n")
    study = open_study(tmp_path / "cut", MIXED, "minimize", 0)
    again = study.ask()
    assert again.settings == whole.settings
    study.tell(again.number, 0.5, FACTS)
    assert [trial.number for trial in study.finished()] == [again.number]


def test_a_damaged_journal_is_refused(tmp_path):
    open_study(tmp_path, MIXED, "minimize", 0).ask()
    journal = tmp_path / "journal.log"
    journal.write_text("not a journal\n" + journal.read_text())
    with pytest.raises(IntegrityError, match="damaged"):
        open_study(tmp_path, MIXED, "minimize", 0)


def test_without_optuna_the_extra_is_named():
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "from pathlib import Path\n"
        "from finetune.adapters.search.study import open_study\n"
        "from finetune.domain.errors import MissingExtra\n"
        "try: open_study(Path('study'), {}, 'minimize', 0)\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'finetune-decisions[sweep]'" in done.stdout
