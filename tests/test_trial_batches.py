"""Every image once, the right pixels, and nothing random but through the generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretended_gpu import PretendedGpu

from trial import batches
from trial.batches import GpuImages, read_ahead


@pytest.fixture
def images():
    """(10, 20, 20, 3) uint8, image i filled with 20 * i."""
    return np.broadcast_to(np.arange(0, 200, 20, dtype=np.uint8)[:, None, None, None], (10, 20, 20, 3)).copy()


def training(images, batch_size, seed=0):
    labels = torch.arange(len(images))
    return epoch_of(images, labels, batch_size, torch.Generator().manual_seed(seed))


def epoch_of(images, labels, batch_size, generator):
    plan = batches.plan_epoch(len(images), batch_size, generator)
    return [batches.training_batch(images, labels, planned, 16) for planned in plan]


@pytest.mark.parametrize("batch_size", [3, 4, 10, 64])
def test_an_epoch_has_every_image_once_in_equal_batches(images, batch_size):
    epoch = training(images, batch_size)
    sizes = [len(labels) for _, labels in epoch]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == list(range(10))


def test_a_batch_belongs_to_its_labels(images):
    for pixels, labels in training(images, 4):
        assert pixels.shape == (len(labels), 3, 16, 16) and pixels.dtype == torch.float32
        grey = pixels[:, 1] * batches.STD[1] + batches.MEAN[1]
        torch.testing.assert_close(grey.mean(dim=(1, 2)) * 255, labels * 20.0, atol=1e-3, rtol=0)


def test_same_seed_same_batches_other_seed_others():
    noise = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    first, again, other = training(noise, 3), training(noise, 3), training(noise, 3, seed=1)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


def test_two_epochs_of_one_generator_differ():
    noise = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6)
    first, second = (epoch_of(noise, labels, 6, generator)[0][0] for _ in range(2))
    assert not torch.equal(first, second)


def draw(n, seed=0):
    return torch.rand(5, n, generator=torch.Generator().manual_seed(seed))


def test_crops_stay_inside_the_image_and_half_are_mirrored():
    ramp = torch.arange(0, 240, 10.0).expand(400, 3, 24, 24)  # brighter to the right
    cropped = batches.crop_and_flip(ramp, 16, draw(400))
    assert cropped.min() >= 0 and cropped.max() <= 230
    rightwards = (cropped[:, 0, 0, -1] > cropped[:, 0, 0, 0]).float().mean()
    assert 0.4 < rightwards < 0.6
    width = (cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]).abs() / 10 * 16 / 15 / 24  # as a fraction of the side
    assert width.min() > (0.5 * 3 / 4) ** 0.5 - 0.02 and width.max() <= 1.001


def test_the_whole_box_reproduces_the_image(monkeypatch):
    monkeypatch.setattr(batches, "CROP_SCALE", (1.0, 1.0))
    monkeypatch.setattr(batches, "CROP_RATIO", (1.0, 1.0))
    noise = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cropped = batches.crop_and_flip(noise, 16, draw(8, seed=1))
    for before, after in zip(noise.float(), cropped, strict=True):
        same = torch.allclose(before, after, atol=0.01) or torch.allclose(before.flip(-1), after, atol=0.01)
        assert same


def test_evaluation_is_the_middle_in_order(images):
    labels = torch.arange(10)
    images[:, 0, :, :] = 255  # a bright border that the middle leaves out
    parts = (slice(0, 4), slice(4, 8), slice(8, 10))
    batched = [batches.evaluation_batch(images, labels, rows, 16) for rows in parts]
    assert torch.cat([part for _, part in batched]).tolist() == list(range(10))
    grey = torch.cat([pixels for pixels, _ in batched])[:, 0] * batches.STD[0] + batches.MEAN[0]
    torch.testing.assert_close(grey.amax(dim=(1, 2)) * 255, labels * 20.0, atol=1e-3, rtol=0)


def test_256_are_stored_for_224():
    assert batches.store_px(224) == 256 and batches.store_px(96) == 110


@pytest.mark.parametrize("is_resident", [True, False])
def test_images_of_a_gpu_give_the_same_batches_as_mapped_ones(is_resident):
    noise = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    expected, middle = training(noise, 4), batches.evaluation_batch(noise, torch.arange(6), slice(1, 4), 16)
    with PretendedGpu():
        images = GpuImages(noise, torch.device("cuda", 0))
        if is_resident:
            images.place()
        labels = torch.arange(6).to("cuda")
        plan = batches.plan_epoch(6, 4, torch.Generator().manual_seed(0))
        actual = [batches.training_batch(images, labels, planned, 16) for planned in plan]
        filled = batches.evaluation_batch(images, labels, slice(1, 4), 16, fill_to=5)
        for (a, a_labels), (b, b_labels) in zip(expected, actual, strict=True):
            assert torch.equal(a, b.cpu()) and torch.equal(a_labels, b_labels.cpu())
        assert torch.equal(filled[0].cpu(), middle[0][[0, 1, 2, 2, 2]]) and filled[1].tolist() == [1, 2, 3]


def test_a_batch_is_the_same_in_however_many_parts_it_is_made(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (7, 20, 20, 3), dtype=np.uint8)
    whole = training(noise, 7)[0][0], batches.evaluation_batch(noise, torch.arange(7), slice(1, 7), 16)[0]
    monkeypatch.setattr(batches, "AT_ONCE", 3)
    parts = training(noise, 7)[0][0], batches.evaluation_batch(noise, torch.arange(7), slice(1, 7), 16)[0]
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(whole, parts, strict=True))
    assert whole[0].is_contiguous(memory_format=torch.channels_last)


def test_boxes_lie_where_affine_grid_puts_them(monkeypatch):
    """Image 0 is the ramp of x, image 1 of y: what a crop shows of them is the grid itself."""
    monkeypatch.setattr(batches, "CROP_SCALE", (0.25, 0.25))
    monkeypatch.setattr(batches, "CROP_RATIO", (1.0, 1.0))
    ramp = torch.arange(32.0)
    both = torch.stack((ramp.expand(3, 32, 32), ramp[:, None].expand(3, 32, 32)))
    drawn = torch.tensor([[0.5], [0.5], [0.25], [0.75], [0.25]]).expand(5, 2)  # mirrored: draw[4] < 0.5
    theta = torch.tensor([[[-0.5, 0, -0.25], [0, 0.5, 0.25]]]).expand(2, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [2, 3, 16, 16], align_corners=False)
    expected = torch.stack(((grid[0, ..., 0] + 1) * 16 - 0.5, (grid[1, ..., 1] + 1) * 16 - 0.5))
    torch.testing.assert_close(batches.crop_and_flip(both, 16, drawn)[:, 0], expected, atol=1e-4, rtol=0)


def test_reading_ahead_gives_the_same_batches_also_in_parts():
    noise = np.random.default_rng(0).integers(0, 256, (23, 36, 36, 3), dtype=np.uint8)
    wanted, parts, count = (
        list(batches.plan_epoch(23, 8, torch.Generator().manual_seed(3))),
        (slice(None), slice(2, 5)),
        0,
    )
    expected = [
        [batches.training_batch(noise, torch.arange(23), (rows[part], draw[:, part]), 32)[0] for part in parts]
        for rows, draw in wanted
    ]
    with PretendedGpu():
        images, labels = GpuImages(noise, torch.device("cuda", 0)), torch.arange(23).to("cuda")
        with read_ahead(images, batches.plan_epoch(23, 8, torch.Generator().manual_seed(3))) as plan:
            for (rows, draw), same in zip(plan, expected, strict=True):
                for part, batch in zip(parts, same, strict=True):
                    pixels, _ = batches.training_batch(images, labels, (rows[part], draw[:, part]), 32)
                    assert torch.equal(pixels.cpu(), batch)
                count += 1
    assert count == 3


def test_a_cpu_reads_for_itself():
    images, plan = np.zeros((1, 8, 8, 3), np.uint8), iter(())
    with read_ahead(images, plan) as given:
        assert given is plan


@pytest.mark.parametrize("n", [2, 3, 5, 17, 100])
@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_a_batch_has_at_least_two_images_and_an_epoch_two_sizes(n, batch_size):
    sizes = [len(rows) for rows, _ in batches.plan_epoch(n, batch_size, torch.Generator())]
    assert sum(sizes) == n and min(sizes) >= 2 and len(set(sizes)) <= 2 and max(sizes) <= max(batch_size, 3)
