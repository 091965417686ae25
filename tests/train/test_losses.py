"""Every loss of Sec. III-D is compared with its equation in NumPy, masks included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from msfnet_runtime import MsfnetError
from msfnet_train.losses import (
    LossConfig,
    MSFNetLoss,
    Weighting,
    auxiliary_loss,
    batch_loss,
    gradient_loss,
    l1_loss,
    ssim_loss,
)
from tests.train.reference import Array, resize, to_numpy

Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def batch(rng: np.random.Generator) -> Batch:
    """Return prediction, target and mask (3, 1, 17, 23); invalid targets are NaN."""
    target = rng.uniform(1, 100, (3, 1, 17, 23)).astype(np.float32)
    prediction = (target + rng.normal(0, 3, target.shape)).astype(np.float32)
    valid = rng.random(target.shape) < 0.8
    target[~valid] = np.nan
    return torch.from_numpy(prediction), torch.from_numpy(target), torch.from_numpy(valid)


def image_means(batch: Batch) -> Array:
    """Return every image's mean absolute error over its valid pixels."""
    prediction, target, valid = (to_numpy(t)[:, 0] for t in batch)
    pairs = zip(prediction, target, valid.astype(bool), strict=True)
    return np.array([np.abs(p - t)[v].mean() for p, t, v in pairs])


def softmax(values: Array) -> Array:
    """Return exp(v) / sum exp(v)."""
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def test_l1_is_the_mean_of_the_images_means(batch: Batch) -> None:
    """An image with few valid pixels has the same weight as any other."""
    batch[2][1, 0, 3:] = False

    assert float(l1_loss(*batch)) == pytest.approx(image_means(batch).mean(), rel=1e-5)


def test_the_batch_loss_weights_hard_samples(batch: Batch) -> None:
    """The images' mean errors are weighted by their softmax; plain L1 is added."""
    means = image_means(batch)

    loss = batch_loss(*batch)

    assert float(loss) == pytest.approx((softmax(means) * means).sum() + means.mean(), rel=1e-5)
    assert (softmax(means) * means).sum() > means.mean()


def test_the_pixel_batch_loss_is_equation_4_as_printed(batch: Batch) -> None:
    """1/n times the sum of the softmax-weighted errors in each image, plus plain L1."""
    prediction, target, valid = (to_numpy(t)[:, 0] for t in batch)
    terms = []
    for p, t, v in zip(prediction, target, valid.astype(bool), strict=True):
        errors = np.abs(p - t)[v]
        terms.append((softmax(errors) * errors).sum() / errors.size)

    loss = batch_loss(*batch, weighting="pixel")

    assert float(loss) == pytest.approx(np.mean(terms) + image_means(batch).mean(), rel=1e-5)


def test_the_weights_of_the_batch_loss_carry_no_gradient(batch: Batch) -> None:
    """The gradient of an image is its weight plus 1/N times the gradient of its mean error."""
    prediction, target, valid = batch
    prediction.requires_grad_()
    means = image_means(batch)

    batch_loss(prediction, target, valid).backward()  # type: ignore[no-untyped-call]

    assert prediction.grad is not None
    share = to_numpy(prediction.grad.abs().sum(dim=(1, 2, 3)))
    np.testing.assert_allclose(share, softmax(means) + 1 / 3, rtol=1e-4)


def test_the_gradient_loss_needs_both_neighbours(batch: Batch) -> None:
    """The mean difference of the slopes in x and in y where both pixels are valid."""
    prediction, target, valid = (to_numpy(t)[:, 0] for t in batch)
    mask = valid.astype(bool)
    expected = 0.0
    for axis in (1, 2):
        slopes = np.abs(np.diff(prediction, axis=axis) - np.diff(target, axis=axis))
        both = np.diff(mask.astype(int), axis=axis) == 0
        both &= np.delete(mask, -1, axis=axis)
        expected += slopes[both].mean()

    assert float(gradient_loss(*batch)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_loss_ignores_a_constant_offset(batch: Batch) -> None:
    """Only slopes count; pixels without valid neighbours add nothing."""
    prediction, _, _ = batch
    every = torch.ones_like(prediction, dtype=torch.bool)
    assert float(gradient_loss(prediction, prediction + 5, every)) == pytest.approx(0, abs=1e-5)

    lonely = torch.zeros_like(every)
    lonely[..., ::2, ::2] = True
    assert float(gradient_loss(prediction, prediction * 2, lonely)) == 0


def ssim_map(x: Array, y: Array, dynamic_range: float) -> Array:
    """Return the SSIM of every complete 11x11 Gaussian window (Wang et al. 2004)."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(image: Array) -> Array:
        views = np.lib.stride_tricks.sliding_window_view(image, (11, 11))
        return np.asarray((views * window).sum(axis=(-2, -1)))

    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, covariance = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    similarity = (2 * mx * my + c1) * (2 * covariance + c2)
    return np.asarray(similarity / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


@pytest.mark.parametrize("dynamic_range", [100.0, 10.0])
def test_ssim_equals_a_direct_computation(batch: Batch, dynamic_range: float) -> None:
    """The definition of Wang et al. 2004, averaged over all windows of a dense batch."""
    prediction, target, _ = batch
    target = torch.nan_to_num(target, nan=30.0)
    every = torch.ones_like(target, dtype=torch.bool)

    maps = [
        ssim_map(to_numpy(p)[0], to_numpy(t)[0], dynamic_range)
        for p, t in zip(prediction, target, strict=True)
    ]

    loss = ssim_loss(prediction, target, every, dynamic_range)
    assert float(loss) == pytest.approx((1 - np.mean(maps)) / 2, abs=1e-5)
    assert float(loss) > 1e-3


def test_ssim_uses_only_windows_without_invalid_pixels(batch: Batch) -> None:
    """A hole removes the windows that touch it; without any window the loss is 0."""
    prediction, target, _ = batch
    target = torch.nan_to_num(target, nan=30.0)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[:, :, :, :4] = False

    maps = [
        ssim_map(to_numpy(p)[0, :, 4:], to_numpy(t)[0, :, 4:], 100.0)
        for p, t in zip(prediction, target, strict=True)
    ]

    loss = ssim_loss(prediction, target.masked_fill(~valid, torch.nan), valid, 100.0)
    assert float(loss) == pytest.approx((1 - np.mean(maps)) / 2, abs=1e-5)
    valid[:, :, 8] = False
    assert float(ssim_loss(prediction, target, valid, 100.0)) == 0


def test_the_auxiliary_loss_sums_the_resized_l1(batch: Batch, rng: np.random.Generator) -> None:
    """Each head is resized bilinearly to the target's grid."""
    _, target, valid = batch
    heads = [rng.uniform(1, 100, (3, 1, *g)).astype(np.float32) for g in ((5, 6), (9, 12))]

    expected = sum(
        image_means((torch.from_numpy(resize(h.astype(float), 17, 23)), target, valid)).mean()
        for h in heads
    )

    loss = auxiliary_loss(tuple(torch.from_numpy(h) for h in heads), target, valid)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_sum_is_equation_3(batch: Batch) -> None:
    """``lambda L_batch + L_grad + L_SSIM + mu L_aux`` with the configured weights."""
    prediction, target, valid = batch
    valid[1] = True
    target = torch.nan_to_num(target, nan=40.0)
    heads = (prediction * 0.9, prediction + 1)
    terms = {
        "batch": 0.5 * batch_loss(prediction, target, valid, "pixel"),
        "gradient": gradient_loss(prediction, target, valid),
        "ssim": ssim_loss(prediction, target, valid, 80.0),
        "auxiliary": 0.25 * auxiliary_loss(heads, target, valid),
    }

    config = LossConfig(0.5, 0.25, weighting="pixel", dynamic_range=80.0)
    result = MSFNetLoss(config)(prediction, heads, target, valid)

    assert set(result) == {*terms, "loss"}
    for name, value in terms.items():
        torch.testing.assert_close(result[name], value)
        assert value > 0
    torch.testing.assert_close(result["loss"], torch.stack(list(terms.values())).sum())


def test_terms_can_be_switched_off(batch: Batch) -> None:
    """Plain L1 replaces the batch term; SSIM and the heads can be absent."""
    terms = MSFNetLoss(LossConfig(batch=False, ssim=False))(batch[0], (), *batch[1:])

    assert set(terms) == {"batch", "gradient", "loss"}
    torch.testing.assert_close(terms["batch"], 0.1 * l1_loss(*batch))


@pytest.mark.parametrize("weighting", ["sample", "pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_errors_of_a_million_is_finite(
    rng: np.random.Generator, weighting: Weighting, dtype: torch.dtype
) -> None:
    """Value and gradient: exp() without subtracting the maximum overflows at 88."""
    target = torch.from_numpy(rng.uniform(1, 100, (2, 1, 16, 16)).astype(np.float32))
    prediction = (target * torch.tensor([1e6, -1e4])[:, None, None, None]).to(dtype)
    prediction.requires_grad_()
    valid = torch.ones_like(target, dtype=torch.bool)

    loss = MSFNetLoss(LossConfig(weighting=weighting))(
        prediction, (prediction[..., ::2, ::2],), target, valid
    )["loss"]
    loss.backward()  # type: ignore[no-untyped-call]

    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert float(loss.detach()) > 1e6
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_an_image_without_depth_is_refused_by_number(batch: Batch) -> None:
    """Instead of returning NaN."""
    batch[2][[0, 2]] = False

    with pytest.raises(MsfnetError, match=r"image\(s\) 0, 2 of the batch"):
        batch_loss(*batch)


@pytest.mark.parametrize(
    "fields", [{"batch_weight": -1.0}, {"auxiliary_weight": -0.1}, {"dynamic_range": 0.0}]
)
def test_weights_that_reward_errors_are_refused(fields: dict[str, float]) -> None:
    """Negative weights, and a dynamic range that is not positive."""
    with pytest.raises(MsfnetError, match=next(iter(fields))):
        LossConfig(**fields)  # type: ignore[arg-type]
