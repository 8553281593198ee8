"""From torch to ONNX: one file, opset 17, with the proof that both say the same.

A scorer whose answer to one image depends on the others of its batch is refused (published hole and square scores do
so where batch norm is left in training mode).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from models.training.loop import TrainingError

OPSET = 17
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest differences found: torch against ONNX Runtime, and an item alone against it in its batch."""

    torch_onnx: float
    alone_batch: float


def export_onnx(
    network: nn.Module,
    examples: Sequence[tuple[Tensor, ...]],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: dict[str, dict[int, str]],
    tolerance: float = 1e-4,
) -> Parity:
    """Write ``network`` to ``path`` and prove it.

    Parameters
    ----------
    network
        Learned network; exported in evaluation mode.
    examples
        Inputs to prove it on, the first batch axis first, of different sizes where sizes are free. At least one
        with two items or more.
    path
        File to write.
    inputs, outputs
        Names of inputs and outputs, in order.
    free
        For each input and output, which axes are free, and their names; axis 0 is ``"n"``.
    tolerance
        Largest difference that passes, absolute.

    Raises
    ------
    TrainingError
        When torch and ONNX Runtime differ, or an answer depends on the rest of its batch.
    """
    network = network.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The older exporter writes plain opset 17 with named free axes, which every runtime reads.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(examples[0]),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(path))
    parity = check_parity(network, examples, path, inputs)
    if parity.torch_onnx > tolerance or parity.alone_batch > tolerance:
        path.unlink()
        raise TrainingError(
            f"{path}: torch and ONNX Runtime differ by {parity.torch_onnx:.2g}, an item alone and in its batch by"
            f" {parity.alone_batch:.2g}; {tolerance:g} is allowed. Not written"
        )
    return parity


def export_maps(network: nn.Module, path: Path, columns: int) -> Parity:
    """Write a network that says ``heat`` and ``shape`` of a ``picture``; proved on two sizes, one ``columns`` wide."""
    generator = torch.Generator().manual_seed(1)
    examples = [
        (torch.randn(2, 1, 64, 96, generator=generator) * 3,),
        (torch.randn(1, 1, 128, columns, generator=generator),),
    ]
    sides, cells = {0: "n", 2: "rows", 3: "columns"}, {0: "n", 2: "cell_rows", 3: "cell_columns"}
    free = {"picture": sides, "heat": cells, "shape": cells}
    return export_onnx(
        network, examples, path, inputs=["picture"], outputs=["heat", "shape"], free=free, tolerance=1e-3
    )


def check_parity(
    network: nn.Module, examples: Sequence[tuple[Tensor, ...]], path: Path, inputs: Sequence[str]
) -> Parity:
    """Largest differences between ``network`` and the ONNX file at ``path`` over ``examples``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(example: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        return list(session.run(None, {name: t.numpy() for name, t in zip(inputs, example, strict=True)}))

    worst, alone = 0.0, 0.0
    for example in examples:
        with torch.no_grad():
            wanted = network(*example)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        got = run(example)
        for ours, theirs in zip(wanted, got, strict=True):
            worst = max(worst, float(np.abs(ours.numpy() - theirs).max()))
        for item in range(len(example[0]) if len(example[0]) > 1 else 0):
            single = run([t[item : item + 1] for t in example])
            for one, many in zip(single, got, strict=True):
                alone = max(alone, float(np.abs(one[0] - many[item]).max()))
    return Parity(worst, alone)


def filled(network: Network, file: Path) -> Network:
    """The same network with the convolutions of exported weights, into which batch norm was folded; it has none.

    Raises
    ------
    TrainingError
        When the file holds another network.
    """
    graph = onnx.load(str(file)).graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    exported = [[known[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]
    ours = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]  # in the order of the forward pass
    shapes = [(tuple(m.weight.shape), m.bias is not None) for m in ours]
    if [(tuple(weights[0].shape), len(weights) == 2) for weights in exported] != shapes:
        raise TrainingError(f"{file}: holds another network than this version's; train it anew")
    with torch.no_grad():
        for module, weights in zip(ours, exported, strict=True):
            module.weight.copy_(torch.from_numpy(weights[0].copy()))
            if module.bias is not None:
                module.bias.copy_(torch.from_numpy(weights[1].copy()))
    return network
