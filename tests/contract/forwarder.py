"""From a port on the loopback to a unix socket, one request per connection: schemathesis speaks TCP, the daemon does not.

Two kinds of answers do not end by themselves: events, and those of machines that live as long as their connection. Here, as
with any client that has read what it wanted, such a connection is ended after the line that it waits for.
"""

import re
import socket
import socketserver
import threading

LAST_LINES = re.compile(rb'"event":"(result|error|reset)"')


class Forwarder(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path):
        super().__init__(("127.0.0.1", 0), Connection)
        self.path = str(path)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(self.server.path)
            upward = threading.Thread(target=self.upward, args=[daemon], daemon=True)
            upward.start()
            try:
                self.downward(daemon.makefile("rb"))
            except OSError:
                # A client that has gone does not want the rest.
                pass
            for end in (daemon, self.request):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def upward(self, daemon):
        """The request: its head with `connection: close`, then whatever comes."""
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = self.request.recv(65536)
                if not data:
                    return
                head += data
            first, rest = head.split(b"\r\n", 1)
            rest = re.sub(rb"(?i)(^|\r\n)connection:[^\r]*", b"", rest, count=1).removeprefix(b"\r\n")
            daemon.sendall(first + b"\r\nConnection: close\r\n" + rest)
            while data := self.request.recv(65536):
                daemon.sendall(data)
        except OSError:
            # A daemon that has refused a long body reads no more of it.
            pass

    def downward(self, answer):
        head = b""
        while line := answer.readline():
            head += line
            if line == b"\r\n":
                break
        lower = head.lower()
        self.request.sendall(head)
        if b"application/x-ndjson" not in lower or b"transfer-encoding: chunked" not in lower:
            while data := answer.read1(65536):
                self.request.sendall(data)
            return
        while size := answer.readline():
            chunk = answer.read(int(size, 16) + 2)
            self.request.sendall(size + chunk)
            if size == b"0\r\n":
                return
            if LAST_LINES.search(chunk):
                self.request.sendall(b"0\r\n\r\n")
                return
