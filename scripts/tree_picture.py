"""A batch that is being scored, drawn: its tree on the left, who sees whom on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from concepts.style import BLACK, BLUE, GREEN, GREY, ORANGE, Plot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from finetune.adapters.hf.encoder import HfEncoder
from finetune.domain.token_tree import TokenTree
from finetune.domain.tree_batches import shared_length

PURPLE = "#882255"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
# All in points, of which an inch has 72.
WIDTH, HEIGHT, MASK, TOP = 800.0, 330.0, 290.0, 30.0
TEXT, SMALL, LEAF, GAP, STEP = 7.0, 6.0, 10.2, 16.0, 7.0


class Batch(NamedTuple):
    """What is drawn: a tree in the order in which scoring grows it.

    ``ends`` and ``leaves`` hold the last node of each prompt, and the node of each label behind it.
    """

    tree: TokenTree
    tokens: list[str]
    instructions: int
    ends: list[int]
    leaves: list[list[int]]


class Chain(NamedTuple):
    """Nodes that follow one another without a branch, and the texts whose paths go through them."""

    nodes: list[int]
    texts: list[int]


def grow(encoder: HfEncoder, texts: Sequence[str]) -> Batch:
    """Grow the tree: instructions, then the rest of each prompt, then labels without their last token."""
    prompts = sorted(encoder.score_ids(text)[0] for text in texts)
    shared = shared_length(*(encoder.score_ids(probe)[0] for probe in ("Hello", "2 of them")))
    tree = TokenTree()
    tree.add(prompts[0][:shared])
    ends = [int(tree.add(prompt)[-1]) for prompt in prompts]
    leaves = [[int(tree.add(path[:-1], start=end)[-1]) for path in encoder.label_paths] for end in ends]
    tokens = [token.replace("\n", "⏎") for token in encoder.tokens(tree.ids.tolist())]
    return Batch(tree, tokens, shared, ends, leaves)


def draw_batch(encoder: HfEncoder, texts: Sequence[str], chosen: tuple[str, str]) -> Plot:
    """Draw the tree and the mask of a few texts; one path, of a text and a label, stands out in both."""
    batch = grow(encoder, texts)
    wanted = encoder.score_ids(chosen[0])[0]
    ids = batch.tree.ids
    row = next(i for i, end in enumerate(batch.ends) if ids[path_to(batch.tree, end)].tolist() == wanted)
    leaf = batch.leaves[row][encoder.outcomes.index(chosen[1])]
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
    left = figure.add_axes((0, 0, 1, 1))
    left.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    left.set_axis_off()
    draw_tree(left, batch, encoder, path_to(batch.tree, leaf))
    place = (WIDTH - MASK - 10) / WIDTH, 1 - (TOP + MASK) / HEIGHT
    right = figure.add_axes((*place, MASK / WIDTH, MASK / HEIGHT))
    draw_mask(right, batch, leaf)
    return Plot(figure, findings(encoder, batch))


def findings(encoder: HfEncoder, batch: Batch) -> list[str]:
    """Return what the picture shows in numbers."""
    size, first, own = len(batch.tree), batch.instructions, max(batch.ends) + 1
    n_texts, n_labels = len(batch.ends), len(encoder.outcomes)
    rows = row_lengths(batch)
    parts = f"{first} of the instructions, {own - first} of the messages, {size - own} of the labels"
    return [
        f"{n_texts} messages, {n_labels} labels each: {size} tokens ({parts})",
        f"as {len(rows)} rows: {sum(rows):,} tokens, {len(rows) * max(rows):,} with padding",
        f"dark: {100 * batch.tree.mask().mean():.0f} % of the mask",
    ]


def row_lengths(batch: Batch) -> list[int]:
    """Return how many tokens a row would have for each message and label."""
    return [len(path_to(batch.tree, leaf)) for leaves in batch.leaves for leaf in leaves]


def path_to(tree: TokenTree, node: int) -> list[int]:
    """Return a node and all above it, from the root on."""
    path, parents = [], tree.parents
    while node >= 0:
        path.append(node)
        node = int(parents[node])
    return path[::-1]


def chains(batch: Batch) -> Iterator[Chain]:
    """Yield the chains in the order of their nodes."""
    parents = batch.tree.parents
    through: list[list[int]] = [[] for _ in parents]
    for text, leaves in enumerate(batch.leaves):
        for node in sorted({node for leaf in leaves for node in path_to(batch.tree, leaf)}):
            through[node].append(text)
    branches = np.bincount(parents[parents >= 0], minlength=len(parents)) > 1
    breaks = [0, batch.instructions]
    nodes: list[int] = []
    for node, parent in enumerate(parents.tolist()):
        if nodes and (parent != nodes[-1] or branches[parent] or node in breaks):
            yield Chain(nodes, through[nodes[0]])
            nodes = []
        nodes.append(node)
    yield Chain(nodes, through[nodes[0]])


def colour_of(chain: Chain) -> str:
    """Black for what several texts share, else the colour of the text."""
    return COLOURS[chain.texts[0]] if len(chain.texts) == 1 else BLACK


def width_of(text: str, size: float) -> float:
    """Width of a text in points; blanks at its end count."""
    return float(TextPath((0, 0), text.replace(" ", "n"), size=size).get_extents().width)


def lines_of(batch: Batch, chain: Chain) -> tuple[str, list[str]]:
    """Return what is written above a chain and, smaller, below it."""
    text = "".join(batch.tokens[node] for node in chain.nodes)
    if chain.nodes[0] == 0:
        count = f"{len(chain.nodes)} tokens, the same in every prompt"
        return count, [f"{line}⏎" for line in text.split("⏎") if line]
    own, mark, tail = text.partition("<|im_end|>")
    *marks, head = (mark + tail).split("⏎")
    return own.strip(), ["".join(f"{line}⏎" for line in marks), head] if mark else []


def places(batch: Batch, parts: dict[int, Chain]) -> tuple[dict[int, float], dict[int, float]]:
    """Return where chains end from left to right, by last node, and how high they are, by first and last."""
    parents = batch.tree.parents.tolist()
    y = {
        leaf: TOP + 4 + LEAF * (i + j * len(leaves)) + GAP * j
        for j, leaves in enumerate(batch.leaves)
        for i, leaf in enumerate(leaves)
    }
    for head, chain in reversed(parts.items()):
        if (last := chain.nodes[-1]) not in y:
            below = [y[node] for node in parts if parents[node] == last]
            y[last] = (min(below) + max(below)) / 2
        y[head] = y[last]
    x = {-1: 10.0}
    for head, chain in parts.items():
        above, lower = lines_of(batch, chain)
        widths = [width_of(above, TEXT), *(width_of(line, SMALL) for line in lower)]
        x[chain.nodes[-1]] = x[parents[head]] + STEP + max(widths) + 3
    # All prompts end below one another, so that the labels stand in one column.
    right = max(x[end] for end in batch.ends)
    x.update(dict.fromkeys(batch.ends, right))
    x.update({leaf: right + STEP for leaves in batch.leaves for leaf in leaves})
    return x, y


def draw_tree(ax: Axes, batch: Batch, encoder: HfEncoder, chosen: Sequence[int]) -> None:
    """Draw chains as lines from left to right, with a dot for each token."""
    parts = {chain.nodes[0]: chain for chain in chains(batch)}
    x, y = places(batch, parts)
    parents = batch.tree.parents.tolist()
    closing = {
        leaf: encoder.tokens(path[-1:])[0]
        for leaves in batch.leaves
        for leaf, path in zip(leaves, encoder.label_paths, strict=True)
    }
    for head, chain in parts.items():
        last, above, colour = chain.nodes[-1], parents[head], colour_of(chain)
        start, end, level = x[above], x[last], y[last]
        thick = head in chosen
        bend = [start, start, end], [y.get(above, level), level, level]
        ax.plot(*bend, color=colour, linewidth=2.6 if thick else 0.8, zorder=1 + thick)
        dots = np.linspace(start + STEP, end, len(chain.nodes))
        ax.plot(dots, np.full(len(dots), level), "o", color=colour, markersize=4 if thick else 2.4)
        if last in closing:
            bold = {"weight": "bold"} if thick else {}
            ax.text(end + 4, level, batch.tokens[last], size=TEXT, color=colour, va="center", **bold)
            offset = width_of(batch.tokens[last], TEXT) * (1.18 if thick else 1.0)
            ax.text(end + 5 + offset, level, closing[last], size=TEXT, color=GREY, va="center")
            continue
        upper, lower = lines_of(batch, chain)
        ax.text(start + STEP - 2, level - 4, upper, size=TEXT, color=colour)
        for i, line in enumerate(lower):
            ax.text(start + STEP - 2, level + 5 + 8.5 * i, line, size=SMALL, color=colour, va="top")
        if last in batch.ends:
            count = f"{len(chain.nodes)} tokens"
            ax.text(end - 3, level + 13.5, count, size=SMALL, color=colour, va="top", ha="right")
    rows = row_lengths(batch)
    padded = f"{len(rows) * max(rows):,} with padding"
    rest = f"As {len(rows)} rows, one for each\nmessage and label:\n{sum(rows):,} tokens, {padded}"
    ax.text(10, y[batch.ends[-1]], rest, size=8, va="center", linespacing=1.5)
    ax.text(10, 14, f"The tree: {len(parents)} tokens, a dot each", size=9, weight="bold")


def draw_mask(ax: Axes, batch: Batch, leaf: int) -> None:
    """Draw the mask: dark where the token of the row sees that of the column."""
    mask, size = batch.tree.mask(), len(batch.tree)
    for chain in chains(batch):
        first, stop = chain.nodes[0], chain.nodes[-1] + 1
        seen = mask[:, first:stop].sum(axis=1)
        changes = [0, *(np.flatnonzero(np.diff(seen)) + 1).tolist(), size]
        for top, bottom in pairwise(changes):
            box = (first, top), int(seen[top]), bottom - top
            ax.add_patch(Rectangle(*box, facecolor=colour_of(chain), linewidth=0))
    lines = np.arange(1, size)
    ax.hlines(lines, 0, size, color="white", linewidth=0.25)
    ax.vlines(lines, 0, size, color="white", linewidth=0.25)
    ax.add_patch(Rectangle((-0.6, leaf - 0.6), size + 1.2, 2.2, fill=False, linewidth=1.1, clip_on=False))
    ax.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.5, color=GREY)
    first, own = batch.instructions, max(batch.ends) + 1
    parts = {"instructions,\nrun once": (0, first), "messages,\none forward": (first, own)}
    for name, (top, bottom) in {**parts, "labels,\none forward": (own, size)}.items():
        ax.plot([-2.2, -2.2], [top + 0.5, bottom - 0.5], color=BLACK, linewidth=0.8, clip_on=False)
        ax.text(-4, (top + bottom) / 2, name, size=TEXT, ha="right", va="center")
    ax.text(0, -6, "The mask: who sees whom", size=9, weight="bold")
    told = "A row is a token. Dark is what it sees:\nthe tokens on its way back to\nthe root, and itself."
    notes = {"size": 8, "ha": "right", "va": "top", "linespacing": 1.5}
    ax.text(size - 2, 3, told, **notes)
    ax.text(size - 2, 34, "Framed: the thick path\nof the tree", **notes)
    arrow = {"arrowstyle": "->", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (size - 4, leaf - 1), (size - 4, 44), arrowprops=arrow)
