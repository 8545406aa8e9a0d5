"""Servers of label probabilities on loopback, with faults on demand."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from tests.fake_models import posterior

FAULTS = ("500", "429", "slow", "cut", "garbage", "list", "strange labels", "no probabilities", "not numbers")
"""What a server may do instead of answering; each must be survived."""


@dataclass
class FakeServer:
    """Knows the posterior of each text, and answers in one or more of the three ways.

    ``faults`` are taken from its front, one for each request that asks for probabilities.
    """

    protocols: tuple[str, ...] = ("decisions", "systemone", "completions")
    faults: list[str] = field(default_factory=list)
    key: str | None = None
    most_options: int = 100
    tilt: float = 1.0
    delay: float = 0.0
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    running: int = 0
    most_running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self) -> str | None:
        with self._lock:
            return self.faults.pop(0) if self.faults else None

    def count(self, change: int) -> None:
        """Keep how many requests run at a time, and how many did at most."""
        with self._lock:
            self.running += change
            self.most_running = max(self.most_running, self.running)

    def probabilities(self, text: str, n: int) -> list[float]:
        values = posterior(text, n, concentration=1.0) ** self.tilt
        return (values / values.sum()).tolist()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and document; the labels come back in reverse order."""
        kind = path.rpartition("/")[2]
        if kind not in self.protocols:
            return 404, {"detail": "Not Found"}
        if kind == "completions":
            return 200, self._completions(body)
        if kind == "decisions":
            [question] = body["questions"]
            names, text = [choice["value"] for choice in question["choices"]], body["input"]
        else:
            names, text = list(body["questions"]["decision"]["criteria"]), body["state"]
        if len(names) > self.most_options:
            return 400, {"detail": f"this model reads at most {self.most_options} options, got {len(names)}"}
        with self._lock:
            self.asked.append(text)
        pairs = list(zip(names, self.probabilities(text, len(names)), strict=True))[::-1]
        best = max(pairs, key=lambda pair: pair[1])[0]
        if kind == "decisions":
            listed = [{"value": name, "probability": p} for name, p in pairs]
            answer = {"type": "choice", "name": question["name"], "choice": best, "probabilities": listed}
            return 200, {"model": body["model"], "answers": [answer]}
        answer = {"type": "choice", "choice": best, "probabilities": dict(pairs), "label_mass": 0.9}
        return 200, {"model": body["model"], "answers": {"decision": answer}}

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        prompts, head = body["prompt"], '{"decision": "'
        begin = prompts[0].rindex(head) + len(head)
        text = prompts[0][:begin]
        # The message is what stands between the instructions and the answer.
        message = re.split(r"\n\n", text[: text.rindex("\n")])[-1]
        with self._lock:
            self.asked.append(message)
        choices = []
        for index, p in enumerate(self.probabilities(message, len(prompts))):
            prompt = prompts[index]
            middle = begin + max(1, (len(prompt) - begin) // 2)
            logprobs = {
                "text_offset": [0, begin, middle, len(prompt)],
                "token_logprobs": [None, float(np.log(p)), -0.1, -3.0],
                "tokens": [text, prompt[begin:middle], prompt[middle:], "x"],
            }
            choices.append({"index": index, "text": prompt, "logprobs": logprobs})
        return {"choices": choices[::-1]}


def spoil(fault: str, document: Any) -> Any:
    """Return an answer that is not what was asked for."""
    text = json.dumps(document)
    if fault == "list":
        return [document]
    if fault == "strange labels":
        return json.loads(text.replace("billing", "bills").replace('"index"', '"number"'))
    if fault == "no probabilities":
        return json.loads(text.replace('"probabilities"', '"p"').replace('"logprobs"', '"none"'))
    if fault == "not numbers":
        return json.loads(re.sub(r"-?\d+\.\d+(e-?\d+)?", '"many"', text))
    return document


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        fake: FakeServer = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake.headers.append(dict(self.headers.items()))
        if fake.key is not None and self.headers.get("Authorization") != f"Bearer {fake.key}":
            self._send(401, {"detail": "no"})
            return
        fake.count(1)
        time.sleep(fake.delay)
        fake.count(-1)
        status, document = fake.answer(self.path, body)
        fault = fake.next_fault() if status == 200 else None
        if fault in ("500", "429"):
            self._send(int(fault), {"error": {"message": "try again"}}, {"Retry-After": "0"})
        elif fault == "slow":
            time.sleep(1.5)
            self._send(status, document)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"answers": [')
        elif fault == "garbage":
            self._raw(200, b"<html>Bad gateway</html>")
        else:
            self._send(status, spoil(fault, document) if fault else document)

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(document).encode(), headers)

    def _raw(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except BrokenPipeError:
            # The client stopped waiting, as a test of slow answers wants it to.
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """Run a server on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.fake = fake  # type: ignore[attr-defined]
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
