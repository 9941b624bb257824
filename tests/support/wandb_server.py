"""A W&B server of this machine that takes runs, and dies."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}


class Server(ThreadingHTTPServer):
    """Answers what W&B asks at the start of a run, until `die`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.begun = threading.Event()
        """A run was begun."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def die(self) -> None:
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        data: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            data = {
                "viewer": VIEWER,
                "model": None,
                "entity": None,
                "serverInfo": {"features": []},
            }
            if "upsertBucket" in asked["query"]:
                project = {"id": "p", "name": "vrnn", "entity": {"id": "e", "name": "me"}}
                bucket = {"id": "r", "name": asked["variables"]["name"], "project": project}
                data["upsertBucket"] = {"bucket": bucket, "inserted": True}
                self.server.begun.set()
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: object) -> None:
        pass
