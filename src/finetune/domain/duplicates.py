"""Texts that are the same, or nearly, found exactly."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from finetune.domain.checks import as_count, is_number
from finetune.domain.errors import InvalidInput

DEFAULT_THRESHOLD = 0.85
DEFAULT_SHINGLE = 5
_PROGRESS_EVERY = 512


class NearPair(NamedTuple):
    """Two rows, ``row_a < row_b``, and the Jaccard similarity of their texts."""

    row_a: int
    row_b: int
    similarity: float


class _Separators(dict[int, int | str]):
    """Translation table that turns punctuation and control characters into spaces, filled as it is used."""

    def __missing__(self, code: int) -> int | str:
        # Not `\W`: that would also take the vowel signs of Indic scripts, and "+" out of "c++".
        self[code] = " " if unicodedata.category(chr(code))[0] in "PZ" or chr(code).isspace() else code
        return self[code]


_SEPARATORS = _Separators()


def normalise_text(text: str) -> str:
    """Reduce a text to what makes it the same text.

    NFKC, case folding, and every run of punctuation and white space one space; none at the ends.  A text
    of punctuation alone stays as it is.

    Examples
    --------
    >>> normalise_text("  My card -- it's GONE!!") == normalise_text("my card, it's gone")
    True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_SEPARATORS).split()) or folded.strip()


def check_texts(texts: Sequence[str]) -> None:
    """Raise InvalidInput for the first row that is not text."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput("a text is not a string", where=f"row {row}", seen=text, remedy="drop the row")


def distinct_texts(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the rows of every normalised text, in order of their first row."""
    check_texts(texts)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows[normalise_text(text)].append(row)
    return [tuple(group) for group in rows.values()]


def similarity(text_a: str, text_b: str, shingle: int = DEFAULT_SHINGLE) -> float:
    """Return the Jaccard similarity of the character `shingle`-gram sets of two normalised texts, in [0, 1].

    Examples
    --------
    >>> similarity("abcdef", "ABCDEF!"), similarity("abcdef", "abcdeg")
    (1.0, 0.3333333333333333)
    """
    a = _shingles(normalise_text(text_a), shingle)
    b = _shingles(normalise_text(text_b), shingle)
    return len(a & b) / len(a | b)


def near_duplicate_pairs(
    texts: Sequence[str],
    threshold: float = DEFAULT_THRESHOLD,
    shingle: int = DEFAULT_SHINGLE,
    on_progress: Callable[[int, int], None] | None = None,
    skip: Callable[[int, int], bool] | None = None,
) -> Iterator[NearPair]:
    """Find all pairs of rows whose similarity is at least `threshold`.

    An exact set-similarity join: the result is that of comparing every row with every other, to the last
    pair.  Shingles are ordered by rarity; two sets this similar share one of their rarest shingles, so
    only these are looked up (prefix filter), and a candidate is dropped if the shingles from there on
    cannot make up the overlap needed (positional filter).

    Parameters
    ----------
    texts
        n texts.  m copies of one text are m(m − 1)/2 pairs: pass the first of each of `distinct_texts`.
    threshold
        In (0, 1], compared as the exact decimal fraction that it is written as.
    shingle
        Characters a shingle, at least 1; a shorter text is one shingle.
    on_progress
        Called now and then with the number of texts done and their total.
    skip
        Called with two rows just before they are compared; they are not where it returns True.

    Returns
    -------
    iterator of NearPair
        In no particular order, each as soon as it is found: `skip` may use those found before.

    Raises
    ------
    InvalidInput
        A text is not a string, or the threshold or the shingle length is out of range.

    Notes
    -----
    Paraphrases and translations are not found: nothing here knows what a text means.

    References
    ----------
    Bayardo, Ma, Srikant 2007, "Scaling up all pairs similarity search", section 4.
    Xiao, Wang, Lin, Yu 2008, "Efficient similarity joins for near duplicate detection" (PPJoin), Algorithm 1.

    Examples
    --------
    >>> list(near_duplicate_pairs(["My card was stolen today", "Hello", "my card was stolen, today!"]))
    [NearPair(row_a=0, row_b=2, similarity=1.0)]
    """
    if not (is_number(threshold) and 0 < threshold <= 1):
        raise InvalidInput("the similarity threshold is not in (0, 1]", seen=threshold, remedy="use 0.85")
    shingle = as_count(shingle, name="shingle")
    check_texts(texts)
    return _join(_records(texts, shingle), Fraction(str(threshold)), on_progress, skip or (lambda *_: False))


def near_duplicate_groups(
    texts: Sequence[str],
    threshold: float = DEFAULT_THRESHOLD,
    shingle: int = DEFAULT_SHINGLE,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, ...]]:
    """Group rows that are connected by near-duplicate pairs; groups of two or more, by their first row.

    Two rows of one group need not be similar themselves: a chain of similar texts connects them.
    Parameters and errors are those of `near_duplicate_pairs`; progress counts distinct texts.

    Examples
    --------
    >>> near_duplicate_groups(["same text", "other", "Same text."])
    [(0, 2)]
    """
    distinct = distinct_texts(texts)
    group_of = list(range(len(distinct)))
    members = [[node] for node in group_of]
    # What a chain connects already is not compared: m texts of one template cost m comparisons, not m².
    pairs = near_duplicate_pairs(
        [texts[rows[0]] for rows in distinct],
        threshold,
        shingle,
        on_progress,
        skip=lambda a, b: group_of[a] == group_of[b],
    )
    for a, b, _ in pairs:
        small, large = sorted((group_of[a], group_of[b]), key=lambda group: len(members[group]))
        for node in members[small]:
            group_of[node] = large
        members[large] += members[small]
        members[small] = []
    groups = (sorted(row for node in nodes for row in distinct[node]) for nodes in members)
    return sorted(tuple(rows) for rows in groups if len(rows) > 1)


def _shingles(text: str, length: int) -> set[str]:
    return {text[start : start + length] for start in range(max(1, len(text) - length + 1))}


def _records(texts: Sequence[str], shingle: int) -> list[list[int]]:
    """Turn each text into its shingles, as ascending ranks from the rarest to the most common."""
    normalised = [normalise_text(text) for text in texts]
    counts: Counter[str] = Counter()
    for text in normalised:
        counts.update(_shingles(text, shingle))
    rank = {
        gram: position for position, gram in enumerate(sorted(counts, key=lambda gram: (counts[gram], gram)))
    }
    # The sets are built twice: keeping them would hold every shingle of every text in memory as a string.
    return [sorted(rank[gram] for gram in _shingles(text, shingle)) for text in normalised]


def _join(
    records: list[list[int]],
    threshold: Fraction,
    on_progress: Callable[[int, int], None] | None,
    skip: Callable[[int, int], bool],
) -> Iterator[NearPair]:
    p, q = threshold.numerator, threshold.denominator
    order = sorted(range(len(records)), key=lambda record: (len(records[record]), record))
    # Token to the records with it in their prefix, and its position there; shortest record first.
    index: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    start: defaultdict[int, int] = defaultdict(int)  # of the postings that are still long enough
    for done, x in enumerate(order):
        if on_progress is not None and done % _PROGRESS_EVERY == 0:
            on_progress(done, len(order))
        tokens = records[x]
        size = len(tokens)
        shortest = -(-p * size // q)
        members = set(tokens)
        met: set[int] = set()
        for i, token in enumerate(tokens[: size - shortest + 1]):
            postings = index[token]
            at = start[token]
            while at < len(postings) and len(records[postings[at][0]]) < shortest:
                at += 1
            start[token] = at
            for y, j in postings[at:]:
                if y in met:
                    continue
                met.add(y)
                other = len(records[y])
                # They meet at the first shingle that they share: all others come after it in both.
                if min(size - i, other - j) * (p + q) < p * (size + other) or skip(x, y):
                    continue
                both = len(members.intersection(records[y]))
                either = size + other - both
                if both * q >= p * either:
                    yield NearPair(min(x, y), max(x, y), both / either)
            postings.append((x, i))
    if on_progress is not None:
        on_progress(len(order), len(order))
