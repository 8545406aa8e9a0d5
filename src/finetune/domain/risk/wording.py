"""How levels are written in sentences."""

from __future__ import annotations

ORDER_MATTERS = "that the order of the calibration cases does not depend on how they turned out,"


def confidence_text(delta: float) -> str:
    """Confidence 1 - delta in digits that do not round it to 1.

    Examples
    --------
    >>> confidence_text(0.1), confidence_text(1e-17)
    ('0.9', '1 - 1e-17')
    """
    return f"{1 - delta:.6g}" if delta >= 1e-5 else f"1 - {delta:g}"
