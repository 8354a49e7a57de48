"""dnsworld A AAAA NXDOMAIN SILENT CALLS LOCAL FILE: a DNS server in namespaces of its own, and known questions to it.

Started by ``unshare --net --mount``. Names are ``n<number>.example``; what the server says follows from the name.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

counts = dict(zip(("a", "aaaa", "nxdomain", "silent", "calls", "local"), map(int, sys.argv[1:7]), strict=True))
A, AAAA = 1, 28
asked = []

for words in ("link set lo up", "address add 10.53.0.1/32 dev lo"):
    subprocess.run(["ip", *words.split()], check=True)
Path(sys.argv[7]).write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
subprocess.run(["mount", "--bind", sys.argv[7], "/etc/resolv.conf"], check=True)


def name_of(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def serve(server):
    while True:
        data, peer = server.recvfrom(600)
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        kind = int.from_bytes(data[at + 1 : at + 3])
        name, question = ".".join(labels), data[12 : at + 5]
        asked.append((name, kind))
        if labels[0].startswith("silent"):
            continue
        code = 3 if labels[0].startswith("nxdomain") else 0
        value = b"" if code else bytes([10, 0, 0, 7]) if kind == A else bytes(15) + b"\7"
        answer = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(value)) + value if value else b""
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, bool(answer), 0, 0)
        server.sendto(head + question + answer, peer)


for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "10.53.0.1")):
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((address, 53))
    threading.Thread(target=serve, args=(made,), daemon=True).start()

print("ready", flush=True)
sys.stdin.readline()
number = 0


def ask(name, kind, family=socket.AF_INET, address="127.0.0.1"):
    global number
    number += 1
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        data = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + name_of(name) + struct.pack(">HH", kind, 1)
        client.sendto(data, (address, 53))
        if not name.startswith("silent"):
            client.recv(600)


for each in range(counts["a"]):
    ask(f"a{each}.example", A, address="10.53.0.1" if each % 2 else "127.0.0.1")
for each in range(counts["aaaa"]):
    ask(f"aaaa{each}.example", AAAA, socket.AF_INET6, "::1")
for each in range(counts["nxdomain"]):
    ask(f"nxdomain{each}.example", A)
for each in range(counts["silent"]):
    ask(f"silent{each}.example", A)
for each in range(counts["calls"]):
    socket.getaddrinfo(f"call{each}.example", 80, type=socket.SOCK_STREAM)
for _ in range(counts["local"]):
    socket.getaddrinfo("localhost", 80)
print(json.dumps({"asked": asked, "pid": os.getpid()}), flush=True)
sys.stdin.read()
