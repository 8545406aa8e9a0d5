"""Texts that are the same, or nearly, found exactly."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import NamedTuple

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


def exact_groups(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the groups of two or more rows with the same normalised text, in order of their first row.

    Examples
    --------
    >>> exact_groups(["Hi!", "bye", "hi"])
    [(0, 2)]
    """
    return [rows for rows in distinct_texts(texts) if len(rows) > 1]


def distinct_texts(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the rows of every normalised text, in order of their first row."""
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
) -> list[NearPair]:
    """Find all pairs of rows whose similarity is at least `threshold`.

    An exact set-similarity join: the result is that of comparing every row with every other, to the last
    pair.  Shingles are ordered by rarity; two sets this similar share one of their rarest shingles, so
    only these are looked up (prefix filter), and a candidate is dropped as soon as the shingles left
    cannot make up the overlap needed (positional filter).

    Parameters
    ----------
    texts
        n texts.
    threshold
        In (0, 1], compared as the exact decimal fraction that it is written as.
    shingle
        Characters a shingle, at least 1; a shorter text is one shingle.
    on_progress
        Called now and then with the number of distinct texts done and their total.

    Returns
    -------
    list[NearPair]
        Sorted by rows.  m copies of one text are m(m − 1)/2 pairs.

    Raises
    ------
    InvalidInput
        The threshold or the shingle length is out of range.

    Notes
    -----
    Paraphrases and translations are not found: nothing here knows what a text means.

    References
    ----------
    Bayardo, Ma, Srikant 2007, "Scaling up all pairs similarity search", section 4.
    Xiao, Wang, Lin, Yu 2008, "Efficient similarity joins for near duplicate detection" (PPJoin), Algorithm 1.

    Examples
    --------
    >>> near_duplicate_pairs(["My card was stolen today", "Hello", "my card was stolen, today!"])
    [NearPair(row_a=0, row_b=2, similarity=1.0)]
    """
    groups = distinct_texts(texts)
    pairs = [NearPair(a, b, 1.0) for rows in groups for a, b in combinations(rows, 2)]
    for first, second, value in _join([texts[rows[0]] for rows in groups], threshold, shingle, on_progress):
        pairs += (NearPair(min(a, b), max(a, b), value) for a, b in product(groups[first], groups[second]))
    return sorted(pairs)


def near_duplicate_groups(
    texts: Sequence[str],
    threshold: float = DEFAULT_THRESHOLD,
    shingle: int = DEFAULT_SHINGLE,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, ...]]:
    """Group rows that are connected by near-duplicate pairs; groups of two or more, by their first row.

    Two rows of one group need not be similar themselves: a chain of similar texts connects them.
    Parameters and errors are those of `near_duplicate_pairs`.

    Examples
    --------
    >>> near_duplicate_groups(["same text", "other", "Same text."])
    [(0, 2)]
    """
    distinct = distinct_texts(texts)
    pairs = _join([texts[rows[0]] for rows in distinct], threshold, shingle, on_progress)
    merged = connected(len(distinct), ((first, second) for first, second, _ in pairs))
    groups = (tuple(sorted(row for member in members for row in distinct[member])) for members in merged)
    return sorted(group for group in groups if len(group) > 1)


def connected(n: int, edges: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return the connected components of n nodes, single ones included, in order of their first node.

    Examples
    --------
    >>> connected(4, [(3, 1)])
    [(0,), (1, 3), (2,)]
    """
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    components: dict[int, list[int]] = defaultdict(list)
    for node in range(n):
        components[root(node)].append(node)
    return [tuple(nodes) for nodes in components.values()]


def _shingles(text: str, length: int) -> set[str]:
    return {text[start : start + length] for start in range(max(1, len(text) - length + 1))}


def _join(
    texts: list[str], threshold: float, shingle: int, on_progress: Callable[[int, int], None] | None
) -> Iterator[tuple[int, int, float]]:
    if not 0 < threshold <= 1:
        raise InvalidInput("the similarity threshold is not in (0, 1]", seen=threshold, remedy="use 0.85")
    if shingle < 1:
        raise InvalidInput("a shingle has at least one character", seen=shingle, remedy="use 5")
    return _join_records(_records(texts, shingle), Fraction(str(threshold)), on_progress)


def _records(texts: list[str], shingle: int) -> list[list[int]]:
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


def _join_records(
    records: list[list[int]], threshold: Fraction, on_progress: Callable[[int, int], None] | None
) -> Iterator[tuple[int, int, float]]:
    p, q = threshold.numerator, threshold.denominator
    order = sorted(range(len(records)), key=lambda record: (len(records[record]), record))
    index: defaultdict[int, list[tuple[int, int]]] = defaultdict(
        list
    )  # token → (record, position), shortest first
    start: defaultdict[int, int] = defaultdict(int)  # of the postings that are still long enough
    for done, x in enumerate(order):
        if on_progress is not None and done % _PROGRESS_EVERY == 0:
            on_progress(done, len(order))
        tokens = records[x]
        size = len(tokens)
        shortest = -(-p * size // q)
        prefix = size - shortest + 1
        overlaps: dict[int, int] = {}  # shared prefix tokens so far; -1: cannot reach the threshold
        for i, token in enumerate(tokens[:prefix]):
            postings = index[token]
            at = start[token]
            while at < len(postings) and len(records[postings[at][0]]) < shortest:
                at += 1
            start[token] = at
            for y, j in postings[at:]:
                shared = overlaps.get(y, 0)
                if shared >= 0:
                    other = len(records[y])
                    needed = -(-p * (size + other) // (p + q))
                    possible = shared + min(size - i, other - j)
                    overlaps[y] = shared + 1 if possible >= needed else -1
            postings.append((x, i))
        candidates = [y for y, shared in overlaps.items() if shared > 0]
        members = set(tokens) if candidates else set()
        for y in candidates:
            both = len(members.intersection(records[y]))
            either = size + len(records[y]) - both
            if both * q >= p * either:
                yield min(x, y), max(x, y), both / either
    if on_progress is not None:
        on_progress(len(order), len(order))
