"""What a meter says of a run, and what it cannot say."""

from __future__ import annotations

import time

from infra.measure import Meter


def test_one_batch_has_no_rate() -> None:
    meter = Meter()
    for batches in range(2):
        assert meter.images_per_second is None, batches
        assert meter.rate == ""
        assert meter.result()["images_per_second"] is None
        meter.batch(8)
    assert meter.images == 16


def test_the_rate_counts_from_the_first_batch_on() -> None:
    meter = Meter()
    meter.batch(1000)
    time.sleep(0.05)
    meter.batch(10)
    rate = meter.images_per_second
    assert rate is not None
    assert 0 < rate <= 200
    assert meter.rate == f"{rate:,.0f} images/s"
    assert meter.result()["images_per_second"] == round(rate, 1)
