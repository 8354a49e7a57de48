"""tcplife PORT WHOLE CUT REFUSED: connections to itself with known bytes each way; the last CUT end with a reset."""

import json
import select
import socket
import struct
import sys
import time

port, whole, cut, refused = map(int, sys.argv[1:])
nobody = socket.socket()
nobody.bind(("127.0.0.1", 0))
server = socket.create_server(("127.0.0.1", port))
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic_ns()
names = []
for number in range(whole + cut):
    client = socket.create_connection(("127.0.0.1", port))
    held, _ = server.accept()
    names.append("{}:{}".format(*client.getsockname()))
    client.sendall(bytes(7 * number + 1))
    left = 7 * number + 1
    while left:
        left -= len(held.recv(left))
    held.sendall(bytes(13))
    assert len(client.recv(100)) == 13
    if number < whole:
        client.close()
        assert held.recv(1) == b""
    else:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        held.close()
        select.select([client], [], [], 10)
        client.close()
    held.close()
for _ in range(refused):
    with socket.socket() as each:
        assert each.connect_ex(nobody.getsockname())
said = {"closed": nobody.getsockname()[1], "names": names, "took_ns": time.monotonic_ns() - began}
print(json.dumps(said), flush=True)
sys.stdin.read()
