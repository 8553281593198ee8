"""Two 3-D networks that mark organelles in volumes: the published U-Net, and the residual one that is in use.

Both use valid convolutions only, so that what they say of a voxel depends on its surroundings and on nothing else, and
both answer alike wherever a block begins on a multiple of `STEP` voxels. Volumes go in as (n, 1, z, y, x) with grey
values in [0, 1]; inside they are shifted to [-1, 1] as published.

The published network is that of ASEM (Gallusser et al., J Cell Biol 222, e202208005, 2023: figure S3 and "Training:
Pipeline details"; 204 voxels in, 110 out, 47 of context a side).
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Arch = Literal["fast", "published"]
LEAK = 0.1  # slope below 0
STEP = 8  # three halvings: a block that begins elsewhere meets other pooling phases


def _crop(volume: Tensor, size: torch.Size | list[int]) -> Tensor:
    """The middle of a volume, ``size`` voxels along the last three axes."""
    z, y, x = ((have - want) // 2 for have, want in zip(volume.shape[2:], size, strict=True))
    return volume[:, :, z : z + size[0], y : y + size[1], x : x + size[2]]


def _twice(volume: Tensor) -> Tensor:
    return functional.interpolate(volume, scale_factor=2.0, mode="nearest")


class OrganelleNet(nn.Module):
    """What both networks share: `logits`, `probabilities` as `forward`, the context, and what they answer.

    Attributes
    ----------
    context
        Voxels of surroundings that are used up at each side; output = input - 2 * context.
    structures
        Answers for each voxel.
    """

    context: int
    structures: int

    def logits(self, volume: Tensor) -> Tensor:
        """Log-odds (n, structures, z, y, x) from grey values in [0, 1]."""
        raise NotImplementedError

    def forward(self, volume: Tensor) -> Tensor:
        """Probabilities."""
        return torch.sigmoid(self.logits(volume))


def _valid_pair(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(cin, cout, 3), nn.ReLU(inplace=True), nn.Conv3d(cout, cout, 3), nn.ReLU(inplace=True)
    )


class PublishedNet(OrganelleNet):
    """The U-Net as published: one structure, two classes, 5,837,730 parameters at its full width of 32.

    The published answer to 204 voxels is 110; the outer 3 are cut off, so that 104 = 13 * 8 remain and blocks can be
    put side by side without a seam (`published_size` tells the uncut one).
    """

    TRIM = 3

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.context, self.structures = 47 + self.TRIM, 1
        w = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList([_valid_pair(a, b) for a, b in zip([1, *w[:3]], w, strict=True)])
        self.up = nn.ModuleList([_valid_pair(w[k] + w[k + 1], w[k]) for k in (2, 1, 0)])
        self.head = nn.Conv3d(width, 2, 3)

    @staticmethod
    def published_size(size: int) -> int:
        """Edge of the published answer to an input of ``size``.

        Raises
        ------
        ValueError
            When a halving would not come out even.
        """
        skips = []
        for _ in range(3):
            size -= 4
            skips.append(size)
            if size % 2:
                raise ValueError("an input of this size has an odd edge at a pooling")
            size //= 2
        size -= 4
        for k, _ in enumerate(reversed(skips)):
            size *= 2
            # the crop keeps every answer in one phase with the poolings above it
            factor = 2 ** (k + 1)
            size -= (size - 4) % factor
            size -= 4
        return size - 2

    def classes(self, volume: Tensor) -> Tensor:
        """The published answer: two classes before the softmax, 47 voxels of context a side."""
        volume = 2 * volume - 1
        skips = []
        for block in self.down[:-1]:
            volume = block(volume)
            skips.append(volume)
            volume = functional.max_pool3d(volume, 2)
        volume = self.down[-1](volume)
        for k, block in enumerate(self.up):
            volume = _twice(volume)
            factor = 2 ** (k + 1)
            size = [n - (n - 4) % factor for n in volume.shape[2:]]
            volume = _crop(volume, size)
            volume = block(torch.cat([_crop(skips.pop(), size), volume], 1))
        answer: Tensor = self.head(volume)
        return answer

    def logits(self, volume: Tensor) -> Tensor:
        """Log-odds of the structure: the softmax of two classes is the sigmoid of their difference."""
        classes = self.classes(volume)
        t = self.TRIM
        return (classes[:, 1:] - classes[:, :1])[:, :, t:-t, t:-t, t:-t]


class Standardised(nn.Conv3d):
    """A convolution whose kernels are brought to mean 0 and one length, times a gain for each channel, as it learns.

    Blocks of one cell are alike and those of two cells are not: a network that normalises by the block, or by running
    statistics, learns another thing than it answers with. Here weights are normalised in the place of volumes (Qiao et
    al., Weight Standardization, 2019; Brock et al., normalizer-free ResNets, 2021), so it answers in training as later,
    and `plain` is the same convolution without any of it.
    """

    def __init__(self, cin: int, cout: int, size: int, *, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__(cin, cout, size, stride=stride)
        nn.init.normal_(self.weight, std=1 / math.sqrt(cin * size**3))
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.full((cout,), gain))

    def kernels(self) -> Tensor:
        """The kernels that it answers with."""
        axes = (1, 2, 3, 4)
        spread, mean = torch.std_mean(self.weight, dim=axes, keepdim=True, correction=0)
        length = spread.clamp(min=1e-6) * math.sqrt(self.weight[0].numel())
        return (self.weight - mean) / length * self.gain[:, None, None, None, None]

    def forward(self, volume: Tensor) -> Tensor:
        """Answers."""
        return functional.conv3d(volume, self.kernels(), self.bias, self.stride)


def _bent(volume: Tensor) -> Tensor:
    """What follows a convolution: never flat, for a level that once falls silent would stay so."""
    return functional.leaky_relu(volume, LEAK)


def _conv(cin: int, cout: int, size: int, *, stride: int = 1, norm: bool, gain: float = 1.0) -> nn.Conv3d:
    return (
        Standardised(cin, cout, size, stride=stride, gain=gain) if norm else nn.Conv3d(cin, cout, size, stride=stride)
    )


class _Residual(nn.Module):
    """Two valid 3 x 3 x 3 convolutions beside a shortcut; 2 voxels a side are used up."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width, 3, norm=norm), _conv(width, width, 3, norm=norm, gain=0.3)

    def forward(self, volume: Tensor) -> Tensor:
        inner = self.second(_bent(self.first(volume)))
        return _bent(volume[:, :, 2:-2, 2:-2, 2:-2] + inner)


class FastNet(OrganelleNet):
    """A residual U-Net that works from half the sampling downwards; 36 voxels of context, any number of structures.

    The stem turns each 2 x 2 x 2 voxels into channels, and the head turns channels back into 2 x 2 x 2 voxels, so
    nothing is computed at full sampling though the answer has it. The finest level is seen by the way up alone and is
    cropped before it is worked on, so most of the work is done for voxels that are answered.

    Parameters
    ----------
    structures
        Answers for each voxel, independent of each other.
    width
        Channels at half the sampling; twice as many at each level below.
    norm
        Whether it learns with `Standardised` convolutions; without, they are plain ones, as `folded` makes them.
    """

    def __init__(self, structures: int = 1, width: int = 24, *, norm: bool = True) -> None:
        super().__init__()
        self.context, self.structures, self.width = 36, structures, width
        w1, w2, w3 = width, 2 * width, 4 * width
        self.stem = nn.Conv3d(1, w1, 2, stride=2)
        nn.init.normal_(self.stem.weight, std=4 / math.sqrt(8))  # grey values spread by about a quarter
        self.down1 = _conv(w1, w2, 2, stride=2, norm=norm)
        self.at1 = _Residual(w2, norm=norm)
        self.down2 = _conv(w2, w3, 2, stride=2, norm=norm)
        self.at2 = _Residual(w3, norm=norm)
        self.join1 = _conv(w3, w2, 1, norm=norm)
        self.back1 = _Residual(w2, norm=norm)
        self.join0 = _conv(w2, w1, 1, norm=norm)
        self.back0 = _Residual(w1, norm=norm)
        self.head = nn.Conv3d(w1, 8 * structures, 1)
        self.level_head(range(structures))

    def level_head(self, which: Iterable[int]) -> None:
        """Let the eight voxels that the head makes of one begin alike, and unlikely, for these structures.

        Otherwise their answers begin apart, and a checkerboard stays in the maps for long (Aitken et al., Checkerboard
        artifact free sub-pixel convolution, 2017).
        """
        with torch.no_grad():
            for k in which:
                part = self.head.weight[8 * k : 8 * k + 8]
                part.copy_(part.mean(0, keepdim=True) * math.sqrt(8))
                self.head.bias[8 * k : 8 * k + 8] = -2.0

    def logits(self, volume: Tensor) -> Tensor:
        """Log-odds of each structure."""
        fine = _bent(self.stem(2 * volume - 1))
        middle = self.at1(_bent(self.down1(fine)))
        coarse = self.at2(_bent(self.down2(middle)))
        coarse = _twice(self.join1(coarse))
        middle = self.back1(coarse + _crop(middle, coarse.shape[2:]))
        middle = _twice(self.join0(middle))
        fine = self.back0(middle + _crop(fine, middle.shape[2:]))
        parts = self.head(fine)
        n, _, z, y, x = parts.shape
        parts = parts.reshape(n, self.structures, 2, 2, 2, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return parts.reshape(n, self.structures, 2 * z, 2 * y, 2 * x)

    def calibrate(self, volume: Tensor) -> None:
        """Begin so that each convolution answers this volume with mean 0 and deviation 1 (the second of a pair: 0.3).

        Nothing holds values in a range later but the kernels' gains, so these have to begin right (Salimans & Kingma,
        Weight Normalization, 2016); else coarse levels drown fine ones or fall silent.
        """

        def level(layer: nn.Module, _given: object, answer: Tensor) -> Tensor:
            if not isinstance(layer, Standardised):
                return answer
            spread, mean = torch.std_mean(answer, dim=(0, 2, 3, 4), correction=0)
            wanted = layer.gain.detach().clone()
            scale = wanted / spread.clamp(min=1e-3)
            layer.gain.mul_(scale)
            layer.bias.copy_(-mean * scale)
            shape = (1, -1, 1, 1, 1)
            return (answer - mean.view(shape)) * scale.view(shape)

        handles = [layer.register_forward_hook(level) for layer in self.modules() if isinstance(layer, Standardised)]
        with torch.no_grad():
            self.logits(volume)
        for handle in handles:
            handle.remove()

    def folded(self) -> "FastNet":
        """The same network of plain convolutions."""
        plain = FastNet(self.structures, self.width, norm=False)
        state = {k: v.detach() for k, v in self.state_dict().items() if not k.endswith(".gain")}
        for name, layer in self.named_modules():
            if isinstance(layer, Standardised):
                state[f"{name}.weight"] = layer.kernels().detach()
        plain.load_state_dict(state)
        plain.eval()
        return plain


def build(arch: Arch, structures: int, width: int, *, norm: bool = True) -> OrganelleNet:
    """A network by name; ``norm`` as in `FastNet`.

    Raises
    ------
    ValueError
        When the published one is asked for more than one structure.
    """
    if arch == "fast":
        return FastNet(structures, width, norm=norm)
    if structures != 1:
        raise ValueError("the published network marks one structure; train one for each, or use the fast one")
    return PublishedNet(width)


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())


def input_size(network: OrganelleNet, out: int) -> int:
    """Edge of the input that gives ``out`` voxels, a multiple of `STEP`."""
    return out + 2 * network.context
