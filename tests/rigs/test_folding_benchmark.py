"""The benchmark of folding, on a network small enough for a test."""

from __future__ import annotations

from itertools import accumulate, count

import numpy as np
import pytest

from msfnet_train import NetworkConfig
from tests.rigs.folding_benchmark import VARIANTS, folding_table, measure_folding


@pytest.mark.slow
def test_every_variant_is_exact_and_cheaper_than_the_one_before() -> None:
    """Batch norm costs no MACs that are counted; Up-blocks and convolutions do.

    By a clock that runs 1 ms longer at every reading, the six variants' calls of a round take
    successive odd milliseconds, so that each median is known: variants were timed in turns.
    """
    config = NetworkConfig(
        encoder="mobilenetv3_small_050",
        pretrained=False,
        decoder_width=0.0625,
        usf_width=32,
        usf_output=8,
    )

    readings = accumulate(count(0.0, 0.001))
    rows = measure_folding({"light": config}, (64, 96), rounds=2, clock=lambda: next(readings))

    unfolded, norm, up_blocks, all_of_them, resizing, winograd = (row.macs for row in rows)
    assert [row.variant for row in rows] == list(VARIANTS)
    assert unfolded == norm > up_blocks > all_of_them > resizing
    assert winograd == resizing  # a decoder this narrow does not repay it
    assert all_of_them < 0.7 * unfolded
    assert max(row.parity for row in rows) < 1e-4
    steps = np.diff([row.p50_ms for row in rows])
    assert steps == pytest.approx(np.full(5, 2.0))
    assert f"{1 - winograd / unfolded:.1%}" in folding_table(rows).splitlines()[-1]
