#!/usr/bin/env python3
"""Plays the Mender server for one device: what the Mender client asks of it in daemon mode, and no more.

    server.py PORT DIRECTORY

    DIRECTORY/<artifact name>.mender   an Artifact; it can be downloaded
    DIRECTORY/deploy                   name of the Artifact to deploy; removed when the client tells the end of the deployment
    DIRECTORY/told                     a line for each status that the client tells: <artifact name> <status>
    DIRECTORY/inventory                the last inventory that the client sent, as it came
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, PLACE = int(sys.argv[1]), Path(sys.argv[2])
OVER = ("success", "failure", "already-installed")


class Server(BaseHTTPRequestHandler):
    """Answers the requests of one client, whoever it says it is."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        """Sends the answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        """What came with the request. The client sends most of it in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def respond(self):
        """Does what is asked; anything unknown does not exist."""
        body = self.body()
        path = self.path.split("?")[0]
        if path.endswith("/auth_requests"):
            self.answer(200, b"a.token.nobody-looks-at")
        elif path.endswith("/inventory/device/attributes"):
            (PLACE / "inventory").write_bytes(body)
            self.answer(200)
        elif path.endswith("/deployments/next"):
            self.next_deployment()
        elif path.endswith("/status"):
            name, status = path.split("/")[-2], json.loads(body)["status"]
            with (PLACE / "told").open("a", encoding="utf-8") as told:
                told.write(f"{name} {status}\n")
            if status in OVER:
                (PLACE / "deploy").unlink(missing_ok=True)
            self.answer(204)
        elif path.endswith("/log"):
            self.answer(204)
        elif path.endswith(".mender") and (PLACE / Path(path).name).is_file():
            self.answer(200, (PLACE / Path(path).name).read_bytes())
        else:
            self.answer(404, b"{}")

    do_GET = do_POST = do_PUT = do_PATCH = respond

    def next_deployment(self):
        """Offers the Artifact to deploy. The name of the Artifact is the id of its deployment."""
        try:
            name = (PLACE / "deploy").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self.answer(204)
            return
        source = {"uri": f"http://127.0.0.1:{PORT}/{name}.mender", "expire": "2099-01-01T00:00:00Z"}
        artifact = {"artifact_name": name, "device_types_compatible": ["bench"], "source": source}
        self.answer(200, json.dumps({"id": name, "artifact": artifact}).encode())


ThreadingHTTPServer(("127.0.0.1", PORT), Server).serve_forever()
