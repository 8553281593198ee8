"""The networks: a compact one-octave hole finder, and the published ones to compare with."""

from typing import Any

import torch
from torch import Tensor, nn

STATE_COUNT = 5


def _block(inside: int, outside: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, side, stride, side // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


def _stack(inside: int, outside: int, repeats: int) -> nn.Sequential:
    """One step down by two, then ``repeats`` blocks."""
    return nn.Sequential(_block(inside, outside, stride=2), *[_block(outside, outside) for _ in range(repeats)])


class HoleNet(nn.Module):  # type: ignore[misc,unused-ignore]
    """Centres, radii, quality and states of holes within one octave of sizes.

    Input (n, 2, rows, columns), sides multiples of 16 (``models.holes.levels``). Output at half the scale: ``centre``
    (n, 1, h, w), probability that a hole's centre is in the cell; ``about`` (n, 7, h, w): natural logarithm of the
    radius in level pixels, logit of the quality, logits of the five states.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 48, 64)) -> None:
        super().__init__()
        one, two, three, four = widths
        self.stem = _block(2, one, side=5, stride=2)
        self.down2, self.down3, self.down4 = _stack(one, two, 2), _stack(two, three, 2), _stack(three, four, 3)
        self.side3, self.mix3 = nn.Conv2d(four, three, 1), _block(three, three)
        self.side2, self.mix2 = nn.Conv2d(three, two, 1), nn.Sequential(_block(two, two), _block(two, two))
        self.head = nn.Conv2d(two, 4 * (2 + 1 + STATE_COUNT), 1)
        self.up, self.spread = nn.Upsample(scale_factor=2, mode="nearest"), nn.PixelShuffle(2)
        nn.init.constant_(self.head.bias, 0.0)
        nn.init.constant_(self.head.bias[:4], -4.0)  # hardly any cell holds a centre
        nn.init.constant_(self.head.bias[4:8], 1.48)  # ln 4.4 pixels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Centre probability and what is known about a hole there."""
        logits = self.logits(x)
        return torch.sigmoid(logits[:, :1]), logits[:, 1:]

    def logits(self, x: Tensor) -> Tensor:
        """All outputs as logits, shape (n, 8, h, w)."""
        two = self.down2(self.stem(x))
        three = self.down3(two)
        four = self.down4(three)
        three = self.mix3(three + self.up(self.side3(four)))
        two = self.mix2(two + self.up(self.side2(three)))
        out: Tensor = self.spread(self.head(two))
        return out


class PublishedUNet(nn.Module):  # type: ignore[misc,unused-ignore]
    """The published hole finder: nine levels, 64 channels, one 3x3 convolution a block, no batch norm (Kim 2023).

    Input (n, 1, rows, columns), sides multiples of 256; output (n, 1, rows, columns), logits. The last bias starts at
    -10, as published. ``log_sigma`` is the logarithm of the blur in pixels, learned with a rate of its own.
    """

    def __init__(self, depth: int = 9, channels: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth - 1)])
        self.rise = nn.ModuleList([nn.Conv2d(2 * channels, channels, 3, padding=1) for _ in range(depth - 1)])
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.constant_(self.last.bias, -10.0)
        self.log_sigma = nn.Parameter(torch.ones(()))  # sigma starts at e

    def forward(self, x: Tensor) -> Tensor:
        """Logit of each pixel, before the blur."""
        x = torch.relu(self.first(x))
        kept: list[Any] = []
        for layer in self.down:
            kept.append(x)
            x = torch.relu(layer(nn.functional.max_pool2d(x, 2)))
        for layer in self.rise:
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = torch.relu(layer(torch.cat([x, kept.pop()], dim=1)))
        out: Tensor = self.last(x)
        return out

    def blurred(self, probability: Tensor, reach: int = 24) -> Tensor:
        """Probabilities blurred with the learned Gaussian, whose weights add up to 1."""
        sigma = torch.exp(self.log_sigma)
        at = torch.arange(-reach, reach + 1, dtype=probability.dtype, device=probability.device)
        line = torch.exp(-0.5 * (at / sigma) ** 2)
        line = line / line.sum()
        out = nn.functional.conv2d(probability, line.view(1, 1, 1, -1), padding=(0, reach))
        blurred: Tensor = nn.functional.conv2d(out, line.view(1, 1, -1, 1), padding=(reach, 0))
        return blurred


class CropNet(nn.Module):  # type: ignore[misc,unused-ignore]
    """A small scorer of crops, shape (n, 1, 32, 32): logits, shape (n,). Used for squares and for holes."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        one, two, three = widths
        self.body = nn.Sequential(
            _block(1, one), _block(one, one, stride=2), _block(one, two), _block(two, two, stride=2),
            _block(two, three), _block(three, three, stride=2),
        )  # fmt: skip
        self.last = nn.Linear(2 * three, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logit of each crop, from the mean and the maximum of what the layers see in it."""
        x = self.body(x)
        out: Tensor = self.last(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))
        return out[:, 0]


class PublishedSquareNet(nn.Module):  # type: ignore[misc,unused-ignore]
    """The published square scorer (Kim et al. 2023) on crops of 32 pixels: five layers of 64, then one convolution."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        layers: list[Any] = []
        inside = 1
        for k, side in enumerate((5, 5, 3, 3, 3)):
            layers.append(_block(inside, channels, side))
            if k < 3:  # crops of 240 pixels have a pool after each layer
                layers.append(nn.MaxPool2d(3, 2, 1))
            inside = channels
        self.body, self.last = nn.Sequential(*layers), nn.Conv2d(channels, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logit of each crop."""
        out: Tensor = self.last(self.body(x))
        return out[:, 0, 0, 0]


class PublishedHoleScore(nn.Module):  # type: ignore[misc,unused-ignore]
    """The published hole scorers (Kim et al. 2023): four layers of 128, then the mean, or one padded convolution."""

    def __init__(self, pooled: bool, channels: int = 128) -> None:
        super().__init__()
        layers: list[Any] = []
        inside = 1
        for side in (5, 3, 3, 3):
            layers += [_block(inside, channels, side), nn.MaxPool2d(2)]
            inside = channels
        self.body, self.pooled = nn.Sequential(*layers), pooled
        self.last: Any = nn.Linear(channels, 1) if pooled else nn.Conv2d(channels, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logit of each crop, shape (n, 1, 32, 32)."""
        x = self.body(x)
        out: Tensor = self.last(x.mean(dim=(2, 3)))[:, 0] if self.pooled else self.last(x)[:, 0, 0, 0]
        return out
