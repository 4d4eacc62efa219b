import pytest

from sid_jax.runtime.storage.sizes import sizes


@pytest.mark.parametrize(
    "counts, shown",
    [
        ((288 * 10**9, 0), ("288.0 GB", "0.0 GB")),
        ((2_500_000, 100_000), ("2.5 MB", "0.1 MB")),
        ((40_960, 0), ("41.0 kB", "0.0 kB")),
        ((300, 7), ("300 bytes", "7 bytes")),
        ((1_010_000_000, 1_000_000_000), ("1.01 GB", "1.00 GB")),
        ((10**12 + 1, 10**12), ("1000000000001 bytes", "1000000000000 bytes")),
        ((5,), ("5 bytes",)),
    ],
)
def test_one_unit_in_which_numbers_that_differ_are_seen_to(counts, shown):
    assert sizes(*counts) == shown
