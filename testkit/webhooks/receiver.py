"""A receiver of webhooks that checks each delivery with the library of Standard Webhooks.

It says its port, reads the webhook's secret from its input, and then says one line of JSON for each delivery. Its first
answer comes late: a control plane that dies meanwhile never hears it.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

LATE = 30
secret = None
first = threading.Lock()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        told = {"id": self.headers["webhook-id"], "verified": False, "forged": False}
        try:
            told["payload"] = Webhook(secret).verify(body, dict(self.headers))
            told["verified"] = True
        except WebhookVerificationError as error:
            told["error"] = str(error)
        try:
            Webhook(secret).verify(body.replace(b"track", b"trick"), dict(self.headers))
            told["forged"] = True
        except WebhookVerificationError:
            pass
        print(json.dumps(told), flush=True)
        if first.acquire(blocking=False):
            time.sleep(LATE)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
print(json.dumps({"port": server.server_address[1]}), flush=True)
secret = sys.stdin.readline().strip()
server.serve_forever()
