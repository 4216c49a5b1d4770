# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.models.decoding import SPLIT_PIXELS, InputSpec, decode_logits, prepare, upsample_logits


def dense(logits, size, input_size, grid):
    """Interpolate every channel in float64, then argmax and softmax: the definition, slowly."""
    places = []
    for pixels, inputs, cells in zip(size, input_size, logits.shape, strict=False):
        center = (np.arange(pixels) + 0.5) / pixels
        source = (center * inputs - 0.5) / (inputs / cells) if grid == "legacy" else center * cells - 0.5
        source = np.clip(source, 0, cells - 1)
        below = np.floor(source).astype(int)
        places.append((below, np.minimum(below + 1, cells - 1), source - below))
    (top, bottom, down), (left, right, across) = places
    values = logits.astype(np.float64)
    rows = values[top] + down[:, None, None] * (values[bottom] - values[top])
    full = rows[:, left] + across[None, :, None] * (rows[:, right] - rows[:, left])
    shifted = np.exp(full - full.max(2, keepdims=True))
    return full, 1 / shifted.sum(2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    factor=st.integers(1, 5),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    classes=st.integers(1, 9),
    scale=st.sampled_from([0.01, 1.0, 20.0]),
    grid=st.sampled_from(["legacy", "half_pixel"]),
)
def test_labels_and_confidence_are_those_of_fully_interpolated_logits(seed, cells, factor, size, classes, scale, grid):
    logits = (np.random.default_rng(seed).normal(size=(*cells, classes)) * scale).astype(np.float32)
    input_size = (cells[0] * factor, cells[1] * factor)

    labels, confidence = decode_logits(logits, size, input_size, grid)

    full, expected = dense(logits, size, input_size, grid)
    chosen = np.take_along_axis(full, labels[..., None].astype(int), 2)[..., 0]
    assert (full.max(2) - chosen <= 1e-5 * (1 + np.abs(chosen))).all()
    np.testing.assert_allclose(confidence, expected, atol=1e-5)
    assert confidence.min() > 0
    assert confidence.max() < 1


def test_equal_logits_give_the_lowest_class_and_an_even_share():
    labels, confidence = decode_logits(np.zeros((2, 2, 4), np.float32), (4, 4), (8, 8))
    assert (labels == 0).all()
    np.testing.assert_allclose(confidence, 0.25, rtol=1e-6)


def test_legacy_grid_puts_logit_i_on_input_pixel_four_i():
    # One row: class 0 falls from 1 to 0 between logits 0 and 1, class 1 is 0.6: they cross at 0.4 logits, pixel 1.6.
    logits = np.array([[[1.0, 0.6], [0.0, 0.6]]], np.float32)
    labels, _ = decode_logits(logits, (4, 8), (4, 8), "legacy")
    assert labels[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_half_pixel_grid_crosses_later_than_the_legacy_grid():
    # Logit centers lie at pixels 1.5 and 5.5; 0.4 of the way is pixel 3.1.
    logits = np.array([[[1.0, 0.6], [0.0, 0.6]]], np.float32)
    labels, _ = decode_logits(logits, (4, 8), (4, 8), "half_pixel")
    assert labels[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_upsampled_logits_repeat_the_last_row_and_column():
    values = upsample_logits(np.array([[[0.0, 4.0]]], np.float32), 4)
    assert values.shape == (1, 4, 8)
    assert values[0, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]


def test_prepare_normalizes_and_orders_channels():
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 255, 128, 0
    spec = InputSpec(mean=(127.5, 128.0, 10.0), std=(127.5, 1.0, 5.0))
    assert prepare(rgb, (2, 2), spec)[0, :, 0, 0].tolist() == [1.0, 0.0, -2.0]
    swapped = prepare(rgb, (2, 2), InputSpec(channels="bgr"))
    assert swapped[0, :, 1, 1].tolist() == [0.0, 128.0, 255.0]


def test_prepare_averages_when_an_image_is_much_larger():
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[::4, ::4] = 160  # one pixel in sixteen
    np.testing.assert_allclose(prepare(rgb, (4, 4), InputSpec()), 10, atol=0.5)


def test_short_side_keeps_the_aspect_ratio_in_whole_multiples():
    assert InputSpec(short_side=520).size_for(480, 640) == (520, 693)
    assert InputSpec(short_side=520, multiple_of=16).size_for(640, 480) == (688, 512)
    assert InputSpec(height=512, width=256).size_for(480, 640) == (512, 256)
    assert InputSpec().size_for(48, 64) == (48, 64)


@pytest.mark.parametrize(
    "values",
    [
        {"height": 500, "width": 512, "multiple_of": 16},
        {"height": 512},
        {"height": -16, "width": -16},
        {"channels": "yuv"},
        {"std": (1.0, 0.0, 1.0)},
    ],
)
def test_impossible_input_is_refused(values):
    with pytest.raises(InputError, match="network input: expected"):
        InputSpec(**values)


@pytest.mark.parametrize("cells", [(1, 5), (2, 3), (7, 8), (60, 80)])
@pytest.mark.parametrize("size", [(240, 320), (301, 173), (2, 40000)])
@pytest.mark.parametrize("grid", ["half_pixel", "legacy"])
def test_two_threads_decode_what_one_does(cells, size, grid):
    logits = np.random.default_rng(0).normal(0, 3, (*cells, 5)).astype(np.float32)
    one = decode_logits(logits, size, (cells[0] * 4, cells[1] * 4), grid, num_threads=1)
    assert size[0] * size[1] >= SPLIT_PIXELS
    for _ in range(3):
        two = decode_logits(logits, size, (cells[0] * 4, cells[1] * 4), grid)
        np.testing.assert_array_equal(two[0], one[0])
        np.testing.assert_array_equal(two[1], one[1])
