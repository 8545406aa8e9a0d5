"""Processor time of ``import finetune.domain`` over that of ``import numpy``.

    python -m benchmarks.import_time

fails if it is not below the limit.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

LIMIT = 0.5
REPEATS = 9


def processor_time(code: str) -> float:
    """Of a fresh interpreter that runs ``code``, in seconds."""
    script = f"{code}\nimport time\nprint(time.process_time())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    pairs = [
        (processor_time("import finetune.domain"), processor_time("import numpy")) for _ in range(REPEATS)
    ]
    domain, numpy = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"import finetune.domain {domain:.3f} s, import numpy {numpy:.3f} s, the rest {domain - numpy:.3f} s"
    )
    if domain - numpy >= LIMIT:
        sys.exit(f"that is not below {LIMIT} s")


if __name__ == "__main__":
    main()
