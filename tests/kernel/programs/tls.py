"""tls WHOLE REFUSED BYTES: handshakes with itself that end well, ones that the client refuses, bytes there and back."""

import json
import socket
import ssl
import sys
import threading

whole, refused, size = map(int, sys.argv[1:4])
certificate, key = sys.argv[4:]
listener = socket.create_server(("127.0.0.1", 0))
ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
ours.load_cert_chain(certificate, key)
trusting = ssl.create_default_context(cafile=certificate)
trusting.check_hostname = False
strict = ssl.create_default_context()


def serve():
    for _ in range(whole + refused):
        taken, _ = listener.accept()
        try:
            with ours.wrap_socket(taken, server_side=True) as stream:
                left = size
                while left:
                    left -= len(stream.recv(left))
                stream.sendall(bytes(2 * size))
                assert stream.recv(1) == b""
        except ssl.SSLError:
            taken.close()


print("ready", flush=True)
sys.stdin.readline()
server = threading.Thread(target=serve)
server.start()
for _ in range(whole):
    with trusting.wrap_socket(socket.create_connection(listener.getsockname())) as stream:
        stream.sendall(bytes(size))
        left = 2 * size
        while left:
            left -= len(stream.recv(left))
        stream.unwrap().close()
for _ in range(refused):
    plain = socket.create_connection(listener.getsockname())
    try:
        strict.wrap_socket(plain, server_hostname="localhost")
    except ssl.SSLError:
        plain.close()
server.join()
print(json.dumps({}), flush=True)
sys.stdin.read()
