import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finetune.domain.errors import InvalidInput
from finetune.domain.labels import ABSTAIN, Abstention, Label, LabelSet, closest, digest, fold

CARDS = LabelSet(
    "Cards",
    (Label("card", "Any question", ("bank card",)), Label("card_lost"), Label("-1"), Label("1")),
    Abstention("Something else", ("unclear",)),
)

names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30).filter(
    lambda name: name == name.strip()
)
label_sets = st.builds(
    lambda found, abstains: LabelSet("t", tuple(map(Label, found)), Abstention() if abstains else None),
    st.lists(names.filter(lambda name: fold(name) != ABSTAIN), min_size=2, max_size=6, unique_by=fold),
    st.booleans(),
)


@given(label_sets)
def test_every_outcome_is_found_again_however_it_is_spelt(labels: LabelSet) -> None:
    for position, outcome in enumerate(labels.outcomes):
        assert labels.index(outcome) == position
        assert labels.resolve(outcome) == outcome
        assert labels.resolve(f"\t {outcome}\n") == outcome


@given(names, names)
def test_a_name_and_its_extension_make_a_label_set_unless_they_fold_alike(name: str, tail: str) -> None:
    assume(fold(name) != fold(name + tail) and ABSTAIN not in (fold(name), fold(name + tail)))
    labels = LabelSet("t", (Label(name), Label(name + tail)))
    assert labels.resolve(name) == name
    assert labels.resolve(name + tail) == name + tail


@given(st.text())
def test_resolve_takes_any_text(text: str) -> None:
    assert CARDS.resolve(text) in (None, *CARDS.outcomes)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("card", "card"),
        ("CARD", "card"),
        ("Bank_Card", "card"),
        (" card - lost ", "card_lost"),
        ("card‑lost", "card_lost"),
        ("ｃａｒｄ", "card"),
        ("-1", "-1"),
        ("1", "1"),
        ("Unclear", "abstain"),
        ("ABSTAIN", "abstain"),
        ("cardlost", None),
        ("", None),
        ("card" * 1000, None),
    ],
)
def test_resolve(text: str, outcome: str | None) -> None:
    assert CARDS.resolve(text) == outcome


def test_abstain_is_no_outcome_without_abstention() -> None:
    labels = LabelSet("t", (Label("a"), Label("b")))
    assert labels.outcomes == ("a", "b")
    assert labels.resolve("abstain") is None


@pytest.mark.parametrize(
    ("labels", "abstention", "message"),
    [
        ((Label("a"),), None, "one label leaves nothing to decide"),
        ((), None, "one label leaves nothing to decide"),
        ((Label(""), Label("b")), None, "is empty"),
        ((Label(" a"), Label("b")), None, "outer spaces"),
        ((Label("a" * 201), Label("b")), None, "longer than 200"),
        ((Label("a\nb"), Label("b")), None, "control character"),
        ((Label("a\ud800"), Label("b")), None, "surrogate"),
        ((Label("a", aliases=("",)), Label("b")), None, "is empty"),
        ((Label("a", aliases=(911,)), Label("b")), None, "is not text"),  # type: ignore[arg-type]
        ((Label("a"), Label("a")), None, "'a' of label 'a' and 'a' of label 'a'"),
        ((Label("a_b"), Label("A b")), None, "'A b' of label 'A b' and 'a_b' of label 'a_b'"),
        ((Label("a"), Label("b", aliases=("A",))), None, "'A' of label 'b' and 'a' of label 'a'"),
        ((Label("a", aliases=("x",)), Label("b", aliases=("X",))), None, "'X' of label 'b' and 'x' of"),
        ((Label("Abstain"), Label("b")), None, "reserved outcome"),
        ((Label("a", aliases=("abstain",)), Label("b")), None, "reserved outcome"),
        ((Label("a"), Label("b")), Abstention(aliases=("B",)), "'b' of label 'b' and 'B' of label 'abstain'"),
    ],
)
def test_bad_label_sets(labels: tuple[Label, ...], abstention: Abstention | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        LabelSet("t", labels, abstention)


def test_a_label_may_list_its_own_name_among_its_aliases() -> None:
    assert LabelSet("t", (Label("a_b", aliases=("a b", "A-B")), Label("c"))).resolve("a-b") == "a_b"


def test_index_suggests_the_closest_outcome() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'card_lost'"):
        CARDS.index("card_lots")
    with pytest.raises(InvalidInput, match="use one of card, card_lost, -1, 1, abstain"):
        CARDS.index("zzzzzzzzz")
    assert closest("zzzz", CARDS.names) is None


def test_the_fingerprint_changes_with_everything_and_survives_pickling() -> None:
    a, b = Label("a"), Label("b")
    sets = [
        LabelSet("t", (a, b)),
        LabelSet("u", (a, b)),
        LabelSet("t", (b, a)),
        LabelSet("t", (Label("a", "d"), b)),
        LabelSet("t", (Label("a", "", ("d",)), b)),
        LabelSet("t", (a, b), Abstention()),
        LabelSet("t", (a, b), Abstention("d")),
        LabelSet("t", (a, b), Abstention("", ("d",))),
    ]
    assert len({labels.fingerprint() for labels in sets}) == len(sets)
    for labels in sets:
        labels.resolve("a")
        assert pickle.loads(pickle.dumps(labels)).fingerprint() == labels.fingerprint()


def test_digests_are_the_same_everywhere() -> None:
    assert digest(["é", None]) == "43424284cca8777ec302aa153bf2159ccdf78040e0db31deb61eab6c629614bb"
