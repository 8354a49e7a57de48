"""Writes small Java Flight Recorder chunks with whatever layout a test wants."""

import struct

TYPES = {
    "long": 1, "int": 2, "boolean": 3, "byte": 4, "float": 5, "double": 6, "java.lang.String": 7,
    "jdk.types.Symbol": 10, "java.lang.Class": 11, "jdk.types.Method": 12, "jdk.types.StackFrame": 13,
    "jdk.types.StackTrace": 14, "jdk.types.ThreadState": 15, "jdk.jfr.Timespan": 16, "test.Pair": 17,
}  # fmt: skip
CONSTANTS = {
    "jdk.types.Symbol": [("string", "java.lang.String", "")],
    "java.lang.Class": [("name", "jdk.types.Symbol", "c")],
    "jdk.types.Method": [("descriptor", "jdk.types.Symbol", "c"), ("name", "jdk.types.Symbol", "c"),
                         ("type", "java.lang.Class", "c")],
    "jdk.types.StackFrame": [("lineNumber", "int", ""), ("method", "jdk.types.Method", "c")],
    "jdk.types.StackTrace": [("frames", "jdk.types.StackFrame", "a"), ("truncated", "boolean", "")],
    "jdk.types.ThreadState": [("name", "java.lang.String", "")],
    "test.Pair": [("left", "float", ""), ("right", "byte", "")],
}  # fmt: skip


def number(value):
    """LEB128 of at most nine bytes, the ninth whole."""
    value &= (1 << 64) - 1
    out = bytearray()
    for _ in range(8):
        if value < 0x80:
            return bytes([*out, value])
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value):
    return b"\3" + number(len(value.encode())) + value.encode()


def event(kind, body):
    body = number(kind) + body
    size = len(body) + 1
    while len(number(size)) + len(body) != size:
        size += 1
    return number(size) + body


class Strings(dict):
    def __call__(self, value):
        return number(self.setdefault(value, len(self)))


def metadata(events, types=TYPES, constants=CONSTANTS):
    """``events``: {name: (number, [(field, type, flags)])}; flags: c constant, a array, t ticks."""
    strings = Strings()

    def element(name, attributes, children=()):
        out = strings(name) + number(len(attributes))
        for key, value in attributes.items():
            out += strings(key) + strings(str(value))
        return out + number(len(children)) + b"".join(children)

    def fields(given):
        return [
            element(
                "field",
                {"name": name, "class": types[kind]}
                | ({"constantPool": "true"} if "c" in flags else {})
                | ({"dimension": 1} if "a" in flags else {}),
                [element("annotation", {"class": types["jdk.jfr.Timespan"], "value": "TICKS"})] if "t" in flags else [],
            )
            for name, kind, flags in given
        ]

    classes = [
        element("class", {"id": at, "name": name}, fields(constants.get(name, ()))) for name, at in types.items()
    ]
    classes += [element("class", {"id": at, "name": name}, fields(given)) for name, (at, given) in events.items()]
    tree = element("root", {}, [element("metadata", {}, classes)])
    table = number(len(strings)) + b"".join(text(one) for one in strings)
    return event(0, number(0) * 3 + table + tree)


def pools(symbols, classes, methods, traces, states=()):
    """Constants by number: names, {class: symbol}, {method: (class, symbol, descriptor)}, {trace: [(method, line)]}."""
    given = {
        "jdk.types.Symbol": {at: text(one) for at, one in symbols.items()},
        "java.lang.Class": {at: number(one) for at, one in classes.items()},
        "jdk.types.Method": {
            at: number(descriptor) + number(name) + number(owner) for at, (owner, name, descriptor) in methods.items()
        },
        "jdk.types.StackTrace": {
            at: number(len(frames)) + b"".join(number(line) + number(method) for method, line in frames) + b"\0"
            for at, frames in traces.items()
        },
        "jdk.types.ThreadState": {at: text(one) for at, one in dict(states).items()},
        "test.Pair": {1: bytes(5)},
    }
    out = number(0) * 3 + b"\1" + number(len(given))
    for name, entries in given.items():
        out += number(TYPES[name]) + number(len(entries))
        out += b"".join(number(at) + body for at, body in entries.items())
    return event(1, out)


def chunk(meta, checkpoint, events, rate=1_000_000_000, start_ns=1_700_000_000_000_000_000, version=(2, 1)):
    body = b"".join(events) + checkpoint
    at = 68 + len(body)
    size = at + len(meta)
    head = struct.pack(
        ">4sHHqqqqqqqI", b"FLR\0", *version, size, at - len(checkpoint), at, start_ns, 2_000_000_000, 0, rate, 1
    )
    return head + body + meta
