"""The samples of a profile come with their stacks; the contract wants each stack once, and within its bounds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streams.schema import stacks
from streams.schema.errors import CorruptRecordError
from streams.schema.stack_columns import StackColumns

MAX_TEXT = 128 * 1024 * 1024


def distinct_stacks(
    flat: NDArray[np.int64] | NDArray[np.int32], depth: NDArray[np.int64], texts: pa.StringArray
) -> tuple[StackColumns, NDArray[np.int64]]:
    """Return (distinct stacks, the stack of each sample).

    Args:
        flat: the samples' frames one after the other, root first, as places in ``texts``.
        depth: how many frames each sample has.
        texts: the frames' texts.

    Raises:
        CorruptRecordError: the stacks would be longer than ``MAX_TEXT`` as text.
    """
    frames = texts.dictionary_encode()
    codes = frames.indices.to_numpy(zero_copy_only=False)[flat].astype(np.int32, copy=False)
    every = StackColumns(frames.dictionary, codes, np.concatenate(([0], np.cumsum(depth))))
    sizes = every.text_bytes()
    if int(sizes.sum()) > MAX_TEXT:
        raise CorruptRecordError(f"the profile's stacks are longer than {MAX_TEXT >> 20} MB as text")
    found, which = every.distinct()
    if np.any((depth == 0) | (depth > stacks.MAX_FRAMES)) or sizes.max(initial=0) > stacks.MAX_STACK_BYTES:
        # No frames, or too many of them, or too long: what becomes equal is one stack.
        mended = [
            stacks.join(text.split(stacks.FRAME_SEPARATOR)) or stacks.frame_text("")
            for text in found.texts().to_pylist()
        ]
        number = {text: at for at, text in enumerate(dict.fromkeys(mended))}
        which = np.array([number[text] for text in mended], np.int64)[which]
        found = StackColumns.from_texts(list(number))
    return found, which
