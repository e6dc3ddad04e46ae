"""Networks that translate images between domains: a residual generator, a patch discriminator, a buffer of images.

    generator      c7-W, two halvings to 4W, residual blocks, two doublings back to W, c7-C, tanh; instance norm, ReLU
    discriminator  4x4 halvings to W, 2W, 4W while the map keeps 4x4 places, then one logit a place; leaky ReLU
    adversarial    loss = mean (D(x) - 1)^2 for real, mean D(x)^2 for translated images (least squares)

Papers: Johnson et al. 2016, https://huggingface.co/papers/1603.08155 (generator); Isola et al. 2017,
https://huggingface.co/papers/1611.07004 (patches); Mao et al. 2017, https://huggingface.co/papers/1611.04076 (least
squares); Shrivastava et al. 2017, https://huggingface.co/papers/1612.07828 (buffer). Doublings are nearest-neighbour
resizings with a convolution, so that any size comes back as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITIAL_STD = 0.02


def normed(convolution: nn.Conv2d) -> nn.Sequential:
    """The convolution, instance normalisation and ReLU."""
    return nn.Sequential(convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU())


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 convolutions. Shape: [B, W, H, W] -> the same."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect") for _ in range(2))
        self.layers = nn.Sequential(normed(first), second, nn.InstanceNorm2d(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layers(inputs)


class Generator(nn.Module):
    """Translates images of one domain into images of the other.

    Args:
        channels: of the images.
        width: channels after the first convolution.
        blocks: residual blocks at a quarter of the size.

    Shape: [B, channels, H, W] in [-1, 1] -> the same; H and W at least 8.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.enter = normed(nn.Conv2d(channels, width, 7, padding=3, padding_mode="reflect"))
        self.down = nn.ModuleList(
            normed(nn.Conv2d(size, 2 * size, 3, stride=2, padding=1)) for size in (width, 2 * width)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(blocks)))
        self.up = nn.ModuleList(normed(nn.Conv2d(2 * size, size, 3, padding=1)) for size in (2 * width, width))
        self.leave = nn.Conv2d(width, channels, 7, padding=3, padding_mode="reflect")
        self.apply(start_small)

    def forward(self, images: Tensor) -> Tensor:
        hidden, sizes = self.enter(images), []
        for layer in self.down:
            sizes.append(hidden.shape[-2:])
            hidden = layer(hidden)
        hidden = self.blocks(hidden)
        for layer, size in zip(self.up, reversed(sizes)):
            hidden = layer(F.interpolate(hidden, size=size))
        return torch.tanh(self.leave(hidden))


class PatchDiscriminator(nn.Sequential):
    """Judges every patch of an image: high for real images of its domain, low for translated ones.

    Args:
        channels: of the images.
        width: channels after the first convolution.
        image_size: height and width; it decides how often the map is halved, at most three times.

    Shape: [B, channels, image_size, image_size] -> [B, 1, H', W'].
    """

    def __init__(self, channels: int, width: int, image_size: int):
        layers: list[nn.Module] = []
        size, before, after = image_size, channels, width
        while size // 2 >= 4 and len(layers) < 3:
            halving = nn.Conv2d(before, after, 4, stride=2, padding=1)
            norm = nn.InstanceNorm2d(after) if layers else nn.Identity()
            layers.append(nn.Sequential(halving, norm, nn.LeakyReLU(0.2)))
            size, before, after = size // 2, after, 2 * after
        super().__init__(*layers, nn.Conv2d(before, 1, 3, padding=1))
        self.apply(start_small)


def start_small(module: nn.Module) -> None:
    """Weights of convolutions from N(0, .02^2), as in the released code of pix2pix and CycleGAN."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)


def least_squares(discrimination: Tensor, is_real: bool) -> Tensor:
    """Mean squared distance of a discriminator's output from 1 (real) or 0 (translated); a scalar."""
    return (discrimination - float(is_real)).square().mean()


class ImageBuffer(nn.Module):
    """Translated images of earlier steps, with which a discriminator is shown the generator's past.

    It keeps the first `capacity` images; then each new one is, with probability 1/2, exchanged for a stored one.

    Args:
        capacity: how many images it holds.
        channels: of the images.
        image_size: height and width.
    """

    def __init__(self, capacity: int, channels: int, image_size: int):
        super().__init__()
        self.register_buffer("images", torch.zeros(capacity, channels, image_size, image_size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def exchange(self, images: Tensor) -> Tensor:
        """As many images [B, C, H, W] as given: the new ones, some replaced by stored ones."""
        shown = images.clone()
        room = len(self.images) - int(self.filled)
        start = int(self.filled)
        stored = images[:room]
        self.images[start : start + len(stored)] = stored
        self.filled += len(stored)
        for row in range(len(stored), len(images)):
            if torch.rand(()) < 0.5:
                index = int(torch.randint(len(self.images), ()))
                shown[row] = self.images[index]
                self.images[index] = images[row]
        return shown
