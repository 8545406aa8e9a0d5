"""Requests with time limits, repeated attempts and a key that is never shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2

from finetune.application.backend_settings import RemoteConfig
from finetune.domain.errors import InvalidInput, Unavailable

T = TypeVar("T")

# Answers that may be others the next time.
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
_ABSENT = (404, 405, 501)
_LONGEST_PAUSE = 60.0
_SHOWN = 300


class NotOffered(Exception):
    """The server has no such endpoint, or refuses what is asked of it; the message says why."""


class BadAnswer(Exception):
    """An answer that is not what was asked for; the next one may be."""


class RemoteClient:
    """Posts JSON to one server.

    Parameters
    ----------
    config
        Address, limits and the name of the variable that holds the key.
    pause
        Waits for so many seconds.
    """

    def __init__(self, config: RemoteConfig, pause: Callable[[float], None] = time.sleep) -> None:
        self._config = config
        self._pause = pause
        key = os.environ.get(config.api_key_variable)
        self._http = httpx2.Client(
            base_url=config.url.rstrip("/"),
            timeout=config.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=config.concurrency),
        )

    def models(self) -> list[str]:
        """Return the names that the server lists; none where it lists none."""
        try:
            return self._send("GET", "/v1/models", None, _names)
        except (NotOffered, Unavailable):
            # Some servers fail at this and answer everything else.
            return []

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Post a JSON object and return what is read from the one that comes back.

        Parameters
        ----------
        path, body
            What is posted where.
        read
            Raises :class:`BadAnswer` where the answer is not what was asked for; then it is asked for again.

        Raises
        ------
        NotOffered
            The endpoint is not there, or the request is refused for what it asks.
        InvalidInput
            The key is wrong or missing.
        Unavailable
            No usable answer came after all attempts.
        """
        return self._send("POST", path, body, read)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[dict[str, Any]], T],
    ) -> T:
        problem, wait = "", 0.0
        for attempt in range(self._config.attempts):
            if attempt:
                self._pause(min(max(wait, self._config.backoff * 2 ** (attempt - 1)), _LONGEST_PAUSE))
            wait = 0.0
            try:
                response = self._http.request(method, path, json=body)
            except httpx2.HTTPError as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
                continue
            status = response.status_code
            if status in (401, 403):
                raise InvalidInput(
                    "the server refuses the key",
                    where=f"{self._config.url}{path}",
                    seen=status,
                    remedy=f"put the right one into the environment variable {self._config.api_key_variable}",
                )
            if status in _PASSING:
                problem, wait = f"status {status}", _seconds(response.headers.get("Retry-After"))
                continue
            if status >= 300:
                missing = "there is no such endpoint" if status in _ABSENT else _reason(response)
                raise NotOffered(f"{path}: {missing} (status {status})")
            try:
                document = response.json()
                if not isinstance(document, dict):
                    raise BadAnswer("it is no JSON object")
                return read(document)
            except ValueError:
                problem = "the answer is no JSON"
            except BadAnswer as error:
                problem = f"the answer is not what was asked for: {error}"
        raise Unavailable(
            f"the server gave no usable answer in {self._config.attempts} attempts: {problem}",
            where=f"{self._config.url}{path}",
            remedy="see that it runs and is not overloaded, lower remote.concurrency, or raise "
            "remote.timeout; `finetune predict` goes on where it stopped",
        )


def _names(document: Mapping[str, Any]) -> list[str]:
    data = document.get("data")
    entries = data if isinstance(data, list) else []
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]


def _seconds(header: str | None) -> float:
    # The other form of the header is a date, which no server of models sends.
    try:
        return max(0.0, float(header or 0.0))
    except ValueError:
        return 0.0


def _reason(response: httpx2.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return response.text[:_SHOWN]
    if isinstance(document, dict):
        document = document.get("detail") or document.get("error") or document.get("message") or document
    if isinstance(document, dict) and "message" in document:
        document = document["message"]
    return str(document)[:_SHOWN]
