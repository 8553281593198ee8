"""Two 3-D networks that mark organelles in volumes: the published U-Net, and the residual one that is in use.

Both use valid convolutions only, so that what they say of a voxel depends on its surroundings and on nothing else, and
both answer alike wherever a block begins on a multiple of `STEP` voxels. Volumes go in as (n, 1, z, y, x) with grey
values in [0, 1]; inside they are shifted to [-1, 1] as published.

The published network is that of ASEM (Gallusser et al., J Cell Biol 222, e202208005, 2023: figure S3 and "Training:
Pipeline details"; 204 voxels in, 110 out, 47 of context a side).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Arch = Literal["fast", "published"]
MOMENTUM = 0.02  # of the running statistics: blocks differ much, so some fifty are averaged
WARM = 40  # blocks after which the running statistics are followed fully
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


class Renormalisation(nn.BatchNorm3d):
    """Batch renormalisation: forward as with the running statistics, gradients as with those of the block.

    Blocks of one cell are alike and those of two cells are not, so a network that normalises each block by itself
    learns what it cannot do later, when it answers with the running statistics. Here it answers with these while it
    learns, too (Ioffe, Batch Renormalization, 2017, with the limits there on how far both may differ).
    """

    def forward(self, volume: Tensor) -> Tensor:
        """Normalised values."""
        if not self.training:
            return super().forward(volume)
        own = functional.batch_norm(volume, None, None, training=True, eps=self.eps)
        with torch.no_grad():
            var, mean = torch.var_mean(volume.float(), dim=(0, 2, 3, 4), correction=0)
            self.num_batches_tracked += 1
            seen = int(self.num_batches_tracked)
            share = max(MOMENTUM, 1 / seen)
            free = min(1.0, seen / WARM)  # at first the statistics are not worth following
            spread = torch.sqrt(self.running_var + self.eps)
            ratio = (torch.sqrt(var + self.eps) / spread).clamp(1 / (1 + 2 * free), 1 + 2 * free)
            shift = ((mean - self.running_mean) / spread).clamp(-5 * free, 5 * free)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(var, share)
            shape = (1, -1, 1, 1, 1)
        gain = (self.weight * ratio).view(shape)
        return own * gain + (self.weight * shift + self.bias).view(shape)


class _Conv(nn.Module):
    """A valid convolution, and where ``norm`` is true normalisation, which `folded` turns into weights."""

    def __init__(self, cin: int, cout: int, size: int, *, stride: int = 1, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv3d(cin, cout, size, stride=stride)
        self.norm = Renormalisation(cout) if norm else nn.Identity()

    def forward(self, volume: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.conv(volume))
        return answer


class _Residual(nn.Module):
    """Two valid 3 x 3 x 3 convolutions beside a shortcut; 2 voxels a side are used up."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.first, self.second = _Conv(width, width, 3, norm=norm), _Conv(width, width, 3, norm=norm)

    def forward(self, volume: Tensor) -> Tensor:
        inner = self.second(functional.relu(self.first(volume)))
        return functional.relu(volume[:, :, 2:-2, 2:-2, 2:-2] + inner)


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
        Whether it learns with `Renormalisation`. It answers with the running statistics, which are weights like others
        then, so that no answer depends on more than a voxel's surroundings.
    """

    def __init__(self, structures: int = 1, width: int = 24, *, norm: bool = True) -> None:
        super().__init__()
        self.context, self.structures, self.width = 36, structures, width
        w1, w2, w3 = width, 2 * width, 4 * width
        self.stem = _Conv(1, w1, 2, stride=2, norm=norm)
        self.down1 = _Conv(w1, w2, 2, stride=2, norm=norm)
        self.at1 = _Residual(w2, norm=norm)
        self.down2 = _Conv(w2, w3, 2, stride=2, norm=norm)
        self.at2 = _Residual(w3, norm=norm)
        self.join1 = nn.Conv3d(w3, w2, 1)
        self.back1 = _Residual(w2, norm=norm)
        self.join0 = nn.Conv3d(w2, w1, 1)
        self.back0 = _Residual(w1, norm=norm)
        self.head = nn.Conv3d(w1, 8 * structures, 1)

    def logits(self, volume: Tensor) -> Tensor:
        """Log-odds of each structure."""
        fine = functional.relu(self.stem(2 * volume - 1))
        middle = self.at1(functional.relu(self.down1(fine)))
        coarse = self.at2(functional.relu(self.down2(middle)))
        coarse = _twice(self.join1(coarse))
        middle = self.back1(coarse + _crop(middle, coarse.shape[2:]))
        middle = _twice(self.join0(middle))
        fine = self.back0(middle + _crop(fine, middle.shape[2:]))
        parts = self.head(fine)
        n, _, z, y, x = parts.shape
        parts = parts.reshape(n, self.structures, 2, 2, 2, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return parts.reshape(n, self.structures, 2 * z, 2 * y, 2 * x)

    def folded(self) -> "FastNet":
        """The same network with its normalisation, as it answers with, folded into its convolutions."""
        plain = FastNet(self.structures, self.width, norm=False)
        state = {k: v for k, v in self.state_dict().items() if ".norm." not in k}
        for name, layer in self.named_modules():
            if isinstance(layer, _Conv) and isinstance(layer.norm, nn.BatchNorm3d):
                norm = layer.norm
                gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                state[f"{name}.conv.weight"] = layer.conv.weight * gain[:, None, None, None, None]
                state[f"{name}.conv.bias"] = (layer.conv.bias - norm.running_mean) * gain + norm.bias
        plain.load_state_dict({k: v.detach() for k, v in state.items()})
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
