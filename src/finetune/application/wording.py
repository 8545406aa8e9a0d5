"""Numbers as people write them: used by certificates, reports and model cards alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_ESTIMABLE = "not estimable"

_MAPS = {
    "identity": "none",
    "temperature": "temperature",
    "vector": "vector scaling",
    "matrix": "matrix scaling",
    "dirichlet": "Dirichlet calibration",
    "platt": "Platt scaling",
    "isotonic": "isotonic regression",
    "beta": "beta calibration",
    "histogram": "histogram binning",
}


def percent(share: float) -> str:
    """Return a share between 0 and 1 as per cent with one decimal, never rounded *to* 0 or 100.

    Examples
    --------
    >>> percent(0.0412), percent(0.0), percent(0.00001), percent(0.99999), percent(1.0)
    ('4.1 %', '0 %', 'under 0.1 %', 'over 99.9 %', '100 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if 0.0 < share < 0.0005:
        return "under 0.1 %"
    if 0.9995 <= share < 1.0:
        return "over 99.9 %"
    return f"{100 * share:.1f} %"


def level(share: float) -> str:
    """Return a level that somebody chose, without decimals it does not have.

    Examples
    --------
    >>> level(0.1), level(0.07), level(0.995)
    ('10 %', '7 %', '99.5 %')
    """
    return f"{100 * share:.10g} %"


def count(number: int) -> str:
    """Return a whole number with thousands separators.

    Examples
    --------
    >>> count(12345)
    '12,345'
    """
    return f"{number:,}"


def decimal(value: float) -> str:
    """Return a number with three significant digits, or three decimals above 1.

    Examples
    --------
    >>> decimal(0.01234), decimal(1.23456), decimal(0.0), decimal(12.0)
    ('0.0123', '1.235', '0', '12')
    """
    text = f"{value:.3f}" if abs(value) >= 1.0 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def describe_estimate(estimate: Mapping[str, Any], *, as_percent: bool = True) -> str:
    """Return an estimate with its interval in words; "not estimable" with the reason where it has no value.

    Parameters
    ----------
    estimate
        ``value``, ``low``, ``high``, ``confidence``; or ``value`` null and ``reason``.

    Examples
    --------
    >>> describe_estimate({"value": 0.041, "low": 0.028, "high": 0.057, "confidence": 0.95})
    '4.1 % (95 % interval 2.8 % to 5.7 %)'
    >>> describe_estimate({"value": None, "reason": "nothing was answered"})
    'not estimable (nothing was answered)'
    """
    show = percent if as_percent else decimal
    if estimate["value"] is None:
        return f"{NOT_ESTIMABLE} ({estimate['reason']})"
    if estimate.get("low") is None:
        return show(estimate["value"])
    return (
        f"{show(estimate['value'])} ({level(estimate['confidence'])} interval "
        f"{show(estimate['low'])} to {show(estimate['high'])})"
    )


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> plural(1, "message"), plural(2000, "message"), plural(2, "class", "classes")
    ('1 message', '2,000 messages', '2 classes')
    """
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def describe_map(certified: Mapping[str, Any]) -> str:
    """Return what a calibration map is, in a word or two.

    Parameters
    ----------
    certified
        The ``map`` of a certificate: ``kind`` and ``parameters``.

    Examples
    --------
    >>> describe_map({"kind": "temperature", "parameters": {"value": 1.93}})
    'temperature 1.93'
    >>> describe_map({"kind": "beta", "parameters": {}, "candidates": [{}, {}]})
    'beta calibration, chosen from 2 by cross-validation'
    """
    kind, candidates = certified["kind"], certified.get("candidates")
    text = _MAPS[kind]
    if kind == "temperature":
        text = f"{text} {decimal(certified['parameters']['value'])}"
    return f"{text}, chosen from {len(candidates)} by cross-validation" if candidates else text
