"""The compact network that finds gold: heat, diameter and offset on a raster of two pixels."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.training.export import filled


class GoldNetwork(nn.Module):
    """Three levels down and up; sees about 60 pixels in each direction.

    Input (n, 1, rows, columns), sides multiples of 8; outputs ``heat`` (n, 1, rows / 2, columns / 2) in logits, and
    ``shape`` (n, 3, rows / 2, columns / 2): logarithm of the diameter over 8 pixels, and the offset (x, y) of the
    centre from the cell's middle in cells.

    Parameters
    ----------
    normed
        With batch norm, to learn from nothing; without it, to go on from exported weights, into which it was folded.
    """

    def __init__(self, normed: bool = True) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1, size: int = 3) -> nn.Sequential:
            pad = dilation * (size // 2)
            convolution = nn.Conv2d(inputs, outputs, size, stride, pad, dilation, bias=not normed)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs) if normed else nn.Identity(), nn.ReLU(True))

        self.stem = block(1, 24, 2, size=5)
        self.fine = block(24, 24)
        self.down4 = block(24, 40, 2)
        self.middle = nn.Sequential(block(40, 40), block(40, 40))
        self.down8 = block(40, 64, 2)
        self.deep = nn.Sequential(block(64, 64), block(64, 64, dilation=2), block(64, 64))
        self.to4 = nn.Conv2d(64, 40, 1)
        self.join4 = block(40, 40)
        self.to2 = nn.Conv2d(40, 24, 1)
        self.join2 = nn.Sequential(block(24, 24), block(24, 24))
        self.heat = nn.Conv2d(24, 1, 1)
        self.shape = nn.Conv2d(24, 3, 1)
        nn.init.constant_(self.heat.bias, -4.0)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of pictures; see the class."""
        at2 = self.fine(self.stem(picture.clamp(-20, 12) * 0.3))
        at4 = self.middle(self.down4(at2))
        at8 = self.deep(self.down8(at4))
        at4 = self.join4(at4 + nn.functional.interpolate(self.to4(at8), scale_factor=2.0, mode="nearest"))
        at2 = self.join2(at2 + nn.functional.interpolate(self.to2(at4), scale_factor=2.0, mode="nearest"))
        return self.heat(at2), self.shape(at2)


def from_onnx(file: Path) -> GoldNetwork:
    """A network that goes on from exported weights; it has no batch norm.

    Raises
    ------
    TrainingError
        When the file holds another network.
    """
    return filled(GoldNetwork(normed=False), file)


def loss(heat: Tensor, shape: Tensor, targets: Tensor, near: Tensor) -> Tensor:
    """Penalty-reduced focal loss of the heat (Zhou et al., CenterNet, 2019, eq. 1) and L1 of diameter and offset."""
    want, weight = targets[:, 0], targets[:, 1]
    logit = heat[:, 0]
    p = torch.sigmoid(logit)
    peak = (want >= 1).float()
    hit = -nn.functional.logsigmoid(logit) * (1 - p) ** 2 * peak
    miss = -nn.functional.logsigmoid(-logit) * p**2 * (1 - want) ** 4 * weight * (1 - peak)
    count = peak.sum().clamp(min=1)
    total = near.sum().clamp(min=1)
    size = (near * (shape[:, 0] - targets[:, 2]).abs()).sum() / total
    offset = (near[:, None] * (shape[:, 1:] - targets[:, 3:]).abs()).sum() / total
    return (hit.sum() + miss.sum()) / count + 1.5 * size + 1.0 * offset
