from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.llm_measuring import PAGE, Worker, best, take_turns, write_section


class Child(Worker):
    """A worker without a process: gives its pieces one after another, and then fails."""

    def __init__(self, *pieces: dict[str, Any]) -> None:
        self.problem = None
        self._pieces = list(pieces)
        self.ended = False

    def begin(self) -> None:
        pass

    def work(self, limit: float) -> dict[str, Any] | None:
        if self._pieces:
            return self._pieces.pop(0)
        self.problem = f"> {limit:g} s"
        return None

    def end(self) -> None:
        self.ended = True


def test_a_section_is_written_in_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_section(page, "Training", "one")
    write_section(page, "Scoring", "two")
    write_section(page, "Training", "three\n\n### Not a section\n")
    assert page.read_text() == f"{PAGE}\n## Training\n\nthree\n\n### Not a section\n\n## Scoring\n\ntwo\n"


def test_the_best_piece_counts() -> None:
    pieces = [{"wall": 2.0, "tokens": 4}, {"wall": 3.0, "tokens": 2}]
    assert best(pieces, "wall") == 2.0
    assert best(pieces, "wall", "tokens") == 0.5


def test_a_side_that_fails_leaves_the_others_their_turns() -> None:
    quick, slow = Child(*[{"wall": float(i)} for i in range(3)]), Child({"wall": 9.0})
    found, problems = take_turns({"quick": quick, "slow": slow}, rounds=3, limit=5.0)
    assert [piece["wall"] for piece in found["quick"]] == [0.0, 1.0, 2.0]
    assert problems == {"slow": "> 5 s"}
    assert quick.ended
    assert slow.ended


def test_what_a_child_complains_of_is_reported() -> None:
    worker = Worker(["benchmarks.no_such_module"], threads=1)
    try:
        worker.begin()
        assert worker.problem is not None
        assert "no_such_module" in worker.problem
        assert worker.work(1.0) is None
    finally:
        worker.end()


def test_a_child_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text(
        "from benchmarks.llm_measuring import Turn\n"
        "turn = Turn()\n"
        "turn.say()\n"
        "while True:\n"
        "    turn.wait()\n"
        "    print('not for the parent')\n"
        "    turn.tell(answer=42)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found, problems = take_turns({"child": Worker(["child"], threads=1)}, rounds=2, limit=60.0)
    assert problems == {}
    assert [piece["answer"] for piece in found["child"]] == [42, 42]
    assert all(piece["wall"] >= 0.0 <= piece["processor"] for piece in found["child"])
