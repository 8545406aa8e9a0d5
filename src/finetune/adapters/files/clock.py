"""The time of day."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The machine's clock, in UTC.

    Examples
    --------
    >>> SystemClock().now()
    '20...+00:00'
    """

    def now(self) -> str:
        """Return the current UTC time in ISO 8601 with seconds."""
        return datetime.now(UTC).isoformat(timespec="seconds")
