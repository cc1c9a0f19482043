#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Takes a lease on a file, renews it, gives it back: lease_client.py [--write] [--renewals N] CONTROL PATH

A client of leasefs in nothing but Python's standard library: the control protocol is JSON-RPC, a message a line, on a
Unix socket (leasefs-protocol(7)). It moves no bytes: those go by RDMA, with the address and the key that the lease
brings. When the server recalls the lease it is given back at once."""

import argparse
import json
import select
import socket
import sys
import time


class Refused(Exception):
    pass


class Client:
    def __init__(self, control, name):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(control)
        self.unread, self.last_id, self.notices = b"", 0, []
        self.session = self.call("session", client=name, version=1)

    def receive(self, timeout=None):
        """The next message; None after the timeout (seconds)."""
        while b"\n" not in self.unread:
            if not select.select([self.socket], [], [], timeout)[0]:
                return None
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("the server ended the connection")
            self.unread += more
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line)

    def call(self, method, **params):
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self.receive()
            if "method" in message:  # a notice may come before the answer
                self.notices.append(message)
            elif message["id"] == self.last_id:
                if "error" in message:
                    error = message["error"]
                    raise Refused(f"{error['message']} {error.get('data', {}).get('remedy', '')}")
                return message["result"]

    def notice(self, timeout):
        return self.notices.pop(0) if self.notices else self.receive(timeout)


def hold(client, path, mode, renewals):
    lease = client.call("lease", path=path, mode=mode)
    print(f"lease {lease['lease']} ({mode}) on {path}: bytes {lease['offset']}+{lease['length']}, "
          f"remote address {lease['remote_address']:#x}, key {lease['rkey']:#x}", flush=True)
    # Well before it ends: an answer may be late, and an RDMA operation in progress must end before the lease does.
    period = lease["lease_time_ms"] / 1000 / 3
    due = time.monotonic() + period
    while renewals:
        notice = client.notice(max(0, due - time.monotonic()))
        if notice is None:
            client.call("renew", lease=lease["lease"])
            due = time.monotonic() + period
            renewals -= 1
            print("renewed", flush=True)
        elif notice["params"]["lease"] != lease["lease"]:
            pass
        elif notice["method"] == "recall":
            print(f"recalled: to be given back within {notice['params']['deadline_ms']} ms", flush=True)
            break
        elif notice["method"] == "revoked":
            print(f"revoked: {notice['params']['reason']}", flush=True)
            return 1
    client.call("return", lease=lease["lease"], sequence=lease["sequence"])
    print("returned", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="an exclusive lease")
    parser.add_argument("--renewals", type=int, default=3, help="after so many it is given back (3)")
    parser.add_argument("control", help="the server's control socket")
    parser.add_argument("path", help="inside the filesystem, from its root")
    arguments = parser.parse_args()
    try:
        client = Client(arguments.control, "lease_client.py")
        return hold(client, arguments.path, "write" if arguments.write else "read", arguments.renewals)
    except (Refused, OSError) as error:
        print(f"lease_client.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
