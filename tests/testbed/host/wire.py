# SPDX-License-Identifier: BSD-2-Clause
"""The frames that travel between exec (client), supervisor and the guest's agent.

One format on both hops, the client's socket and the virtio-serial port: kind, session, length,
payload. The supervisor only renumbers sessions, so output is never parsed or re-encoded.
"""

import json
import struct

HEADER = struct.Struct(">BII")
MAX_PAYLOAD = 1 << 20
# How much output of one session may be under way before the client has taken it. It bounds the
# memory of supervisor and agent however slow the client is.
WINDOW = 1 << 20
CHUNK = 64 << 10

# towards the guest
OPEN = 1      # JSON: argv, env; a session begins
DATA = 2      # bytes of the script (argv[0] is "-"); may repeat
START = 3     # run it
KILL = 4      # JSON: reason; end the session by force
ACK = 5       # 4 bytes: so much output was taken by the client
# from the guest
HELLO = 16    # JSON: the guest is ready
BEAT = 17     # the guest is alive
OUT = 18      # a stream number (1 or 2) and output
EXIT = 19     # JSON: status, kernel
# only between client and supervisor
STATUS = 32   # asks for, and answers with, JSON
STOP = 33     # end the guest
DIED = 34     # JSON: reason, console; no guest any more

ACK_FORMAT = struct.Struct(">I")


def frame(kind, session, payload=b""):
    return HEADER.pack(kind, session, len(payload)) + payload


def json_frame(kind, session, value):
    return frame(kind, session, json.dumps(value).encode())


class Splitter:
    """Cuts a byte stream into frames."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, session, length = HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise ValueError(f"frame of {length} bytes: the stream is out of step")
            if len(self._buffer) < HEADER.size + length:
                return
            payload = bytes(self._buffer[HEADER.size:HEADER.size + length])
            del self._buffer[:HEADER.size + length]
            yield kind, session, payload
