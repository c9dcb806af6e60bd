"""An OpenAI-compatible server that answers from a script, for what goes wrong."""

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import Quiet

Reply = tuple[int, dict[str, str], Any]


def completion(text: str | None, reason: str = "stop", **message: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": text} | message, "finish_reason": reason}
    return 200, {}, {"model": "m-2024", "choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 4}}


def error(status: int, message: str, code: str = "", **headers: str) -> Reply:
    return status, headers, {"error": {"message": message, "code": code}}


class Endpoint:
    """A server that answers from a script, then by repeating the last user's words; remembers what it was asked."""

    def __init__(self) -> None:
        self.script: deque[Reply] = deque()
        self.pause_s = 0.0
        self.answer: Callable[[dict[str, Any]], Reply | None] = lambda body: None
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.under_way = self.most_under_way = 0
        lock = threading.Lock()
        endpoint = self

        class Handler(Quiet, BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    endpoint.under_way += 1
                    endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
                    endpoint.bodies.append(body)
                    endpoint.keys.append(self.headers.get("Authorization"))
                    scripted = endpoint.script.popleft() if endpoint.script else None
                time.sleep(endpoint.pause_s)
                status, headers, value = (
                    scripted or endpoint.answer(body) or completion("re: " + body["messages"][-1]["content"])
                )
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                with lock:
                    endpoint.under_way -= 1
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name.replace("_", "-"), text)
                if "Content_Length" in headers:  # a lie: the body ends early
                    self.close_connection = True
                else:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that ran out of patience
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
