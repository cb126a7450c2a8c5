"""Grad-CAM by captum against its definition, and the numbers that compare maps."""

import numpy as np
import pytest
import torch

from lib import cam, data
from lib.resnet import ResNet

IMAGES = data.load("digits", train_size=64)


def by_definition(model, x, labels):
    """Selvaraju et al. 2017, equations 1 and 2."""
    maps = model.layer3(model.layer2(model.layer1(torch.relu(model.norm1(model.conv1(x)))))).detach().requires_grad_()
    logits = model.linear(maps.mean((2, 3)))
    logits[torch.arange(len(x)), labels].sum().backward()
    weights = maps.grad.mean((2, 3), keepdim=True)
    return torch.relu((weights * maps).sum(1)).detach()


@pytest.mark.parametrize("norm", ["torch_bn", "bn", "in", "bin", "ln", "gn", "nn"])
def test_maps_are_those_of_the_definition(norm):
    model, split = ResNet(1, 10, norm).eval(), IMAGES.test.take(slice(7))
    found = cam.maps(model, IMAGES, split, batch_size=3)
    expected = by_definition(model, IMAGES.normalize(split.images), split.labels)
    expected = expected / expected.sum((1, 2), keepdim=True).clamp_min(1e-12)
    assert found.shape == (7, 8, 8)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def one_hot(*places):
    heat = torch.zeros(len(places), 2, 2)
    for image, place in enumerate(places):
        heat[image].view(-1)[place] = 1
    return heat


def test_overlap_of_equal_disjoint_and_half_equal_maps():
    assert cam.overlap(one_hot(0, 1), one_hot(0, 2)).tolist() == [1.0, 0.0]
    assert cam.overlap((one_hot(0) + one_hot(1)) / 2, one_hot(1)).tolist() == [0.5]


def test_an_empty_map_has_no_overlap_not_even_with_itself():
    with_empty = torch.cat([one_hot(0), torch.zeros(1, 2, 2)])
    assert np.isnan(cam.overlap(with_empty, with_empty)).tolist() == [False, True]
    assert cam.mean_overlap(with_empty, with_empty) == 1
    assert np.isnan(cam.mean_overlap(with_empty[1:], with_empty[1:]))


def test_chance_is_the_overlap_of_different_images():
    assert cam.chance(one_hot(0, 1, 2), one_hot(0, 1, 2)) == 0
    assert cam.chance(one_hot(3, 3, 3), one_hot(3, 3, 3)) == 1


def test_beyond_chance_is_the_share_of_what_is_possible():
    assert cam.beyond_chance(1.0, 0.6) == 1 and cam.beyond_chance(0.6, 0.6) == 0
    assert cam.beyond_chance(0.77, 0.63) == pytest.approx(0.14 / 0.37)
    assert np.isnan(cam.beyond_chance(1.0, 1.0))


def test_half_area():
    even, point, empty = torch.full((1, 2, 2), 0.25), one_hot(2), torch.zeros(1, 2, 2)
    found = cam.half_area(torch.cat([even, point, empty]))
    assert found[:2].tolist() == [0.5, 0.25] and np.isnan(found[2])


def test_maps_are_enlarged_to_their_image():
    large = cam.enlarged(one_hot(0), 8, 12)
    assert large.shape == (1, 8, 12) and large[0, 0, 0] == 1 and large[0, 7, 11] == 0


def test_pairs_of_trainings_and_of_norms():
    maps = {("torch_bn", 0): one_hot(0, 1, 2, 3), ("bn", 0): one_hot(0, 1, 2, 3), ("gn", 0): one_hot(0, 1, 3, 2)}
    maps[("gn", 1)] = one_hot(0, 1, 3, 2)
    pairs = cam.pairs(maps)
    assert len(pairs) == 6 and pairs.loc[0, ["a", "seed_a", "b", "seed_b", "overlap", "chance", "beyond"]].tolist() == [
        "torch_bn", 0, "bn", 0, 1.0, 0.0, 1.0,
    ]  # fmt: skip
    found = cam.by_norm(pairs, ("nn", "gn", "bn"))
    assert list(found.index) == ["nn - nn", "nn - gn", "nn - bn", "gn - gn", "gn - bn", "bn - bn"]
    assert found["n"].tolist() == [0, 0, 0, 1, 4, 1]
    assert found.loc["gn - bn", "overlap"] == 0.5 and found.loc["gn - bn", "chance"] == pytest.approx(1 / 6)
    assert found.loc["gn - bn", ["value", "low", "high"]].tolist() == pytest.approx([0.4] * 3)
    assert found["apart"].tolist() == [False, False, False, False, True, False]
    alone = cam.by_norm(pairs[pairs["a"] != "gn"], ("gn", "bn"))  # of GN there is one training: what is alike is not known
    assert not alone["apart"].any()


def test_equally_wide_maps_have_one_profile_and_the_order_of_their_heat():
    heat = torch.tensor([[[0.7, 0.2], [0.1, 0.0]], [[0.3, 0.28], [0.22, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])
    found = cam.equally_wide(heat)
    torch.testing.assert_close(found[0], torch.tensor([[0.4, 0.3], [0.2, 0.1]]))
    assert torch.equal(found[0], found[1]) and not found[2].any()


def test_areas_of_right_and_wrong_images():
    wide, narrow = torch.full((1, 2, 2), 0.25), one_hot(0)  # half of their heat lies in 0.5 and 0.25 of the image
    maps = {("torch_bn", 0): torch.cat([wide, wide, narrow]), ("bn", 0): torch.cat([wide, narrow, narrow])}
    maps[("nn", 0)] = torch.cat([narrow, narrow, wide])
    right = {("torch_bn", 0): [True, True, False], ("bn", 0): [True, False, False], ("nn", 0): [True, True, False]}
    found = cam.areas(maps, {key: np.array(answers) for key, answers in right.items()})
    assert list(found.index) == ["bn", "bn", "nn"]
    assert found["shared"].tolist() == [0.5, 0.5, 0.25] and found["wrong"].tolist() == [0.25, 0.25, 0.5]
    assert found["right"].tolist() == [0.5, 0.5, 0.25]
    assert found["mistake"].tolist()[:2] == [-0.25, -0.25] and np.isnan(found["mistake"].iloc[2])  # the second image
    assert found["images"].tolist() == [1, 1, 0]
