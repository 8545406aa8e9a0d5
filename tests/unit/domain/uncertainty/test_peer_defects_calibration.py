"""What went wrong in other libraries' calibration errors: each test fails with the behaviour seen there."""

import numpy as np
import pytest

from finetune.domain.calibration import (
    classwise_bins,
    compute_ece,
    compute_smooth_ece,
    null_band,
    reliability_bins,
)


def test_torchmetrics_confidence_one_falls_into_a_bin_of_its_own():
    # torchmetrics 1.9.0: .525; 1.0 and 0.95 belong to the last of ten bins together: |0.5 - 0.975| = .475
    assert compute_ece([1.0, 0.95], [0, 1], 10) == pytest.approx(0.475)
    assert compute_ece([[0.0, 1.0], [0.05, 0.95]], [0, 1], 10) == pytest.approx(0.475)
    assert len(reliability_bins([1.0, 0.95], [0, 1], 10).counts) == 10


def test_netcal_raises_when_only_two_of_the_labels_occur():
    rng = np.random.default_rng(0)
    rows, labels = rng.dirichlet(np.ones(5), size=50), rng.integers(2, size=50)
    confidence, hits = rows.max(axis=1), rows.argmax(axis=1) == labels
    index = np.ceil(confidence * 10).astype(int) - 1
    plain = sum(abs((hits[index == b] - confidence[index == b]).sum()) for b in range(10)) / 50
    assert compute_ece(rows, labels) == pytest.approx(plain)
    assert len(classwise_bins(rows, labels).labels) == 5


def test_netcal_measures_another_quantity_with_two_labels():
    # netcal 1.4.0 takes p(y = 1) as the confidence at K = 2, that of the likeliest label from K = 3 on
    two = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    three = np.column_stack([two, np.zeros(3)])
    labels = [0, 1, 1]
    assert compute_ece(two, labels) == pytest.approx(compute_ece(three, labels))
    assert compute_ece(two, labels) == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert compute_ece(two[:, 1], labels) == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert compute_ece([[0.9, 0.1], [0.1, 0.9]], [0, 0]) == pytest.approx(0.4)  # one bin: |1/2 - .9|
    assert compute_ece([0.1, 0.9], [0, 0]) == pytest.approx(0.5)  # two bins: what netcal would say of both


def test_mapie_makes_one_bin_less_than_asked_for():
    y_prob, y_true = [0.25, 0.75], [1, 0]
    for n_bins in (1, 2, 10):
        assert len(reliability_bins(y_prob, y_true, n_bins).counts) == n_bins
    assert compute_ece(y_prob, y_true, 1) == pytest.approx(0.0)
    assert compute_ece(y_prob, y_true, 2) == pytest.approx(0.75)  # with one bin less: 0


def test_relplot_counts_half_of_what_sits_at_the_ends():
    # relplot 1.0.3: .168; half of the rows say 1 and are wrong by .4, the others say .5 and are wrong by .1
    p, y = np.repeat([1.0, 0.5], 50), np.tile([1, 1, 1, 0, 0], 20)
    assert compute_smooth_ece(p, y) == pytest.approx(0.2009, abs=1e-4)


def test_an_error_of_few_rows_is_no_sign_of_miscalibration():
    # A calibrated model shows .17 at n = 25: the number alone misleads, which is why the band is beside it.
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1.0, 25)
    found = compute_ece(p, rng.random(25) < p, 15)
    band = null_band(p, rng, 15)
    assert found > 0.1
    assert band.low <= found <= band.high
