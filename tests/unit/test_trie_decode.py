"""Pyroscope's ``trie`` and ``tree``: the stacks they hold, and what is refused."""

import random

import pytest

from collectors.ingest import formats, trie
from collectors.ingest.errors import RefusedError
from collectors.ingest.upload import from_parameters
from streams.schema.stacks import split
from tests.integration.known_profiles import varint


def node(name, value=0, *children):
    name = name if isinstance(name, bytes) else name.encode()
    return varint(len(name)) + name + varint(value) + varint(len(children)) + b"".join(children)


def decoded(body, form="", content_type=""):
    """Return {stack as ``a;b``: value} of the one series in a body."""
    parameters = {"name": "app.cpu{version=v1}", "format": form, "sampleRate": "1000"}
    (one,) = formats.decode(body, from_parameters(parameters, content_type))
    assert one.profile.period == 1_000_000
    assert one.labels["service_name"] == "app"
    texts = [";".join(frame.function for frame in split(text)) for text in one.profile.texts]
    assert len(set(texts)) == len(texts)
    return dict(zip(texts, one.profile.values[:, 0].tolist(), strict=True))


# What Pyroscope's own tests hold: abc 1 and abd 2 as a trie; a;b 1 and a;c 2 as a tree.
TRIE = b"\x00\x00\x01\x02ab\x00\x02\x01c\x01\x00\x01d\x02\x00"
TREE = b"\x00\x00\x01\x01a\x00\x02\x01b\x01\x00\x01c\x02\x00"


def test_what_pyroscope_writes():
    assert decoded(TRIE, "trie") == {"abc": 1, "abd": 2}
    assert decoded(TREE, "tree") == {"a;b": 1, "a;c": 2}
    assert decoded(TRIE, "lines", "binary/octet-stream+trie") == {"abc": 1, "abd": 2}
    assert decoded(TREE, "", "binary/octet-stream+tree") == {"a;b": 1, "a;c": 2}


def test_a_trie_cuts_stacks_anywhere():
    umlaut = "ü".encode()
    body = node("", 0, node("main;w", 0, node("ork", 7, node(";deep", 300)), node(b"\xc3", 0, node(b"\xbc", 5))),
                node(umlaut, 1 << 40))  # fmt: skip
    assert decoded(body, "trie") == {"main;work": 7, "main;work;deep": 300, "main;wü": 5, "ü": 1 << 40}
    assert decoded(node("only", 3), "trie") == {"only": 3}
    assert decoded(node("", 0, node("", 0, node("a", 2)), node("b", 3)), "trie") == {"a": 2, "b": 3}


def test_a_trees_values_are_the_frames_own():
    body = node(
        "", 0, node("main", 11, node("work", 7, node("leaf", 5), node("", 3)), node("walk", 2)), node("idle", 1)
    )
    assert decoded(body, "tree") == {
        "main": 11, "main;work": 7, "main;work;leaf": 5, "main;work;[unknown]": 3, "main;walk": 2, "idle": 1,
    }  # fmt: skip
    assert decoded(node("root", 5, node("a", 1)), "tree") == {"root": 5, "root;a": 1}
    # Time without a stack counts too, and a frame is no less one for being written twice.
    assert decoded(node("", 13, node("a", 1), node("a", 2)), "tree") == {"[unknown]": 13, "a": 3}


def test_any_stacks_come_back():
    chance = random.Random(7)
    for _ in range(50):
        wanted = {}
        for _ in range(chance.randrange(1, 40)):
            frames = [f"f{chance.randrange(5)}" for _ in range(chance.randrange(1, 9))]
            wanted[";".join(frames)] = chance.randrange(1, 1 << 45)
        assert decoded(tree_of(wanted), "tree") == wanted
        assert decoded(trie_of({stack.encode(): value for stack, value in wanted.items()}), "trie") == wanted


def tree_of(stacks, name=""):
    below = {}
    for stack, value in stacks.items():
        first, _, rest = stack.partition(";")
        below.setdefault(first, {})[rest] = value
    own = below.pop("", {}).get("", 0) if name else 0
    return node(name, own, *(tree_of(more, first) for first, more in below.items()))


def trie_of(stacks, name=b""):
    own = stacks.pop(b"", 0)
    below = {}
    for stack, value in stacks.items():
        below.setdefault(stack[:1], {})[stack[1:]] = value
    return node(name, own, *(trie_of(more, first) for first, more in below.items()))


@pytest.mark.parametrize("form", ["trie", "tree"])
def test_what_is_cut_or_goes_on_is_refused(form):
    whole = TRIE if form == "trie" else TREE
    for end in range(1, len(whole)):
        refused(whole[:end], form, "ends within")
    refused(whole + b"\0", form, "1 bytes follow")
    refused(b"\xff" * 9 + b"\x01", form, "63 bits")
    refused(b"\x00" + b"\xff" * 10, form, "63 bits")
    refused(b"\xff\xff\xff\xff\x7f" + bytes(50), form, "ends within")
    refused(b"\x00\x00\xff\xff\xff\xff\x7f", form, "ends within")
    refused(node("a", (1 << 63) - 1, node("b", 1)), form, "63 bits")


def test_an_empty_trie_is_none_and_an_empty_tree_is_no_tree():
    assert formats.decode(b"", from_parameters({"name": "a", "format": "trie"}, "")) == []
    refused(b"", "tree", "ends within")


def test_a_small_body_cannot_become_a_large_profile(monkeypatch):
    long = node("", 0, node("x" * 300_000, 0, *(node(f"{n}", 1) for n in range(400))))
    refused(long, "trie", "too many or too long")
    refused(node("", 0, node("x" * (1 << 20) + "y", 1)), "trie", "too many or too long")
    monkeypatch.setattr(trie, "MAX_NODES", 7)
    refused(node("", 0, *(node(f"{n}", 1) for n in range(7))), "tree", "more than 7 nodes")
    monkeypatch.setattr(trie, "MAX_SAMPLES", 3)
    refused(node("", 0, *(node(f"{n}", 1) for n in range(6))), "tree", "too many or too long")


def test_a_deep_stack_keeps_its_leaf():
    deep = node("leaf", 5)
    for _ in range(3000):
        deep = node("f", 0, deep)
    ((stack, value),) = decoded(node("", 0, deep), "tree").items()
    assert (stack.split(";")[0], stack.split(";")[-1], value) == ("[truncated]", "leaf", 5)


def refused(body, form, why):
    with pytest.raises(RefusedError, match=why) as error:
        decoded(body, form)
    assert error.value.status == 422
