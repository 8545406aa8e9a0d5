"""Draw the plots of the concept pages, and put what they show in numbers under them.

    python scripts/plot_concepts.py                  # all: into docs/concepts/img, and into the pages
    python scripts/plot_concepts.py coverage aps     # these two
    python scripts/plot_concepts.py --to FOLDER aps  # somewhere else, pages untouched; --png for pixels

Every plot is a simulation with a fixed seed: the same numbers, and with the same matplotlib the same bytes.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from concepts import calibration, conditional, conformal, decisions, objectives, proofs, shifts, streams
from concepts.style import make

PAGES = Path(__file__).parents[1] / "docs" / "concepts"
PLOTS = {
    **conformal.PLOTS,
    **conditional.PLOTS,
    **shifts.PLOTS,
    **streams.PLOTS,
    **calibration.PLOTS,
    **proofs.PLOTS,
    **decisions.PLOTS,
    **objectives.PLOTS,
}


def command_of(name: str) -> str:
    """Line of a page under which the findings of a plot stand."""
    return f"$ python scripts/plot_concepts.py {name}"


def with_findings(page: str, name: str, findings: list[str]) -> str:
    """Return the page with these findings under the command of the plot, if it has one."""
    block = re.compile(rf"({re.escape(command_of(name))}\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
    return block.sub(lambda found: found[1] + "".join(f"{line}\n" for line in findings), page)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw the plots of the concept pages.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="one or more of: " + ", ".join(PLOTS))
    parser.add_argument("--to", type=Path, help="folder to write to, instead of the pages' own")
    parser.add_argument("--png", action="store_true", help="write PNG instead of SVG")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PLOTS]
    if unknown:
        parser.error(f"no plot is named {', '.join(unknown)}; there are {', '.join(PLOTS)}")
    for name in options.names or PLOTS:
        findings = make(
            PLOTS[name], (options.to or PAGES / "img") / f"{name}.{'png' if options.png else 'svg'}"
        )
        print("\n".join([command_of(name), *findings, ""]))
        if options.to is None:
            for page in sorted(PAGES.glob("*.md")):
                text = page.read_text(encoding="utf-8")
                page.write_text(with_findings(text, name, findings), encoding="utf-8")


if __name__ == "__main__":
    main()
