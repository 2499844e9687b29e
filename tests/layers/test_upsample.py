"""Super-resolution by any factor."""

import pytest
import torch

from dnnlib.errors import ConfigError
from torch_utils.draws import Draws
from training.layers.upsample import SuperResolution


def network(**arguments) -> SuperResolution:
    sizes = {"w_dim": 6, "input_resolution": 8, "img_resolution": 16, "widths": (5, 4), "features": 7}
    return SuperResolution(**(sizes | arguments))


def inputs(side: int = 8, n: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features = torch.randn(n, 7, side, side)
    return features[:, :3], features, torch.randn(n, 4, 6)


@pytest.mark.parametrize(("factor", "widths"), [(1, (5,)), (2, (5, 4)), (4, (5, 4)), (8, (6, 5, 4))])
@pytest.mark.parametrize("side", [6, 8, 20])
def test_any_factor_from_any_raw_size(factor, widths, side):
    image, raw = network(img_resolution=8 * factor, widths=widths)(*inputs(side))
    assert image.shape == (2, 3, 8 * factor, 8 * factor)
    assert raw.shape == (2, 3, side, side)


@pytest.mark.parametrize(
    "wrong",
    [{"img_resolution": 24}, {"img_resolution": 4}, {"img_resolution": 64}, {"widths": (), "img_resolution": 16}],
)
def test_sizes_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match=r"resolution|doublings"):
        network(**wrong)


def test_only_the_last_style_matters():
    net, (rgb, features, ws) = network(), inputs()
    other = torch.cat([torch.randn(2, 2, 6), ws[:, -1:]], dim=1)
    torch.testing.assert_close(net(rgb, features, ws).image, net(rgb, features, other).image)


def test_the_raw_image_is_left_alone_unless_the_quirk_is_asked_for():
    rgb, features, ws = inputs()
    kept = rgb.clone()
    plain = network()
    quirky = network(raw_in_place=True)
    quirky.load_state_dict(plain.state_dict())
    assert torch.equal(plain(rgb, features, ws).image_raw, kept)
    out = quirky(rgb, features, ws)
    torch.testing.assert_close(out.image, plain(rgb, features, ws).image)
    _, expected = plain.get_submodule("block0")(features, kept, ws[:, -1:].expand(-1, 3, -1), "none")
    torch.testing.assert_close(out.image_raw, expected)
    assert torch.equal(rgb, kept)  # the input itself is never written to


def test_the_quirk_ends_where_a_resize_or_a_doubling_comes_first():
    rgb, features, ws = inputs(6)
    assert torch.equal(network(raw_in_place=True)(rgb, features, ws).image_raw, rgb)
    rgb, features, ws = inputs()
    assert torch.equal(network(raw_in_place=True, img_resolution=32)(rgb, features, ws).image_raw, rgb)


def test_noise_is_its_own_choice():
    rgb, features, ws = inputs()
    net = network(noise="random")
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(1.0)

    def image(seed: int) -> torch.Tensor:
        return net(rgb, features, ws, Draws(seed, items=(0, 1), batch=2)).image

    assert torch.equal(image(0), image(0))
    assert not torch.equal(image(0), image(1))
    still = net(rgb, features, ws).image
    assert torch.equal(still, net(rgb, features, ws).image)
    assert not torch.equal(still, image(0))
