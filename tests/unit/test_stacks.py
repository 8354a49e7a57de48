"""A stack's text cannot be forged, and its id is that of the text."""

from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from streams.schema import stacks
from streams.schema.stacks import Frame

TEXT = st.text(max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT, st.integers(-5, 2**31)), min_size=1, max_size=6))
def test_as_many_frames_come_back_as_went_in(frames):
    found = stacks.split(stacks.join([stacks.frame_text(*frame) for frame in frames]))
    assert len(found) == len(frames)
    for (function, _, line), frame in zip(frames, found, strict=True):
        assert frame.line == max(0, line)
        if function.isprintable() and function:
            assert frame.function == function


def test_separators_inside_a_name_cannot_forge_a_frame():
    text = stacks.frame_text("evil\nname\tx\r\x00", "a\tb", -3)
    assert stacks.split(text) == [Frame("evil name x  ", "a b", 0)]


def test_a_frame_without_a_name_is_unknown_and_an_endless_name_is_cut():
    assert stacks.split(stacks.frame_text("")) == [Frame(stacks.UNKNOWN, "", 0)]
    assert len(stacks.split(stacks.frame_text("x" * 5000))[0].function) == stacks.MAX_FIELD


def test_an_endless_stack_keeps_its_leaves_under_a_mark():
    found = stacks.split(stacks.join([stacks.frame_text(f"f{i}") for i in range(5000)]))
    assert len(found) == stacks.MAX_FRAMES
    assert (found[0].function, found[-1].function) == ("[truncated]", "f4999")


def test_the_id_is_blake2b_of_the_text_also_with_lone_surrogates():
    assert stacks.stack_id("main\t\t0") == int.from_bytes(blake2b(b"main\t\t0", digest_size=8).digest(), "little")
    assert 0 <= stacks.stack_id("\udcff") < 2**64
