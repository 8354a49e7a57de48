"""A paged table holds what a dict would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.pages import PagedTable

PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3000)), max_size=60)


@given(st.lists(PAIRS, max_size=8))
def test_it_holds_what_a_dict_would(rounds):
    table, truth = PagedTable(), {}
    for pairs in rounds:
        groups, functions = (np.array([pair[at] for pair in pairs], np.int64) for at in (0, 1))
        assert table.get(groups, functions).tolist() == [truth.get(pair, -1) for pair in pairs]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in truth]
        numbers = range(len(truth), len(truth) + len(new))
        truth |= dict(zip(new, numbers, strict=True))
        arrays = (np.array([pair[at] for pair in new], np.int64) for at in (0, 1))
        table.put(*arrays, np.array(numbers, np.int64))
        assert table.get(groups, functions).tolist() == [truth[pair] for pair in pairs]


def test_far_apart_pairs_cost_a_page_each_and_no_more():
    table = PagedTable()
    groups, functions = np.arange(100), np.arange(100) * 1000
    table.get(groups, functions)
    table.put(groups, functions, np.arange(100))
    assert table.get(groups, functions).tolist() == list(range(100))
    assert table.get(groups, functions[::-1]).tolist() == [-1] * 100
    assert table.cells < 200 * 32 + 200 * 6000
