"""A network of organelles small enough for a test: it blurs, pools and says how dark it is, by valid convolutions."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models import runtime

CONTEXT = 3


def write(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """Manifest of a network with two maps, ``dark`` and ``bright``; pooling makes it see only even shifts alike."""
    rng = np.random.default_rng(0)
    blur = np.ones((1, 1, 3, 3, 3), np.float32) / 27
    pick = rng.uniform(0.5, 1, (1, 1, 3, 3, 3)).astype(np.float32)
    pick /= pick.sum()
    sharp = np.array([-40.0, 40.0], np.float32).reshape(2, 1, 1, 1, 1)
    level = np.array([16.0, -24.0], np.float32)
    weights = [("blur", blur), ("pick", pick), ("sharp", sharp), ("level", level)]
    weights.append(("scales", np.array([1, 1, 2, 2, 2], np.float32)))
    nodes = [
        helper.make_node("Conv", ["volume", "blur"], ["a"], kernel_shape=[3, 3, 3]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        helper.make_node("Conv", ["b", "pick"], ["c"], kernel_shape=[3, 3, 3]),
        helper.make_node("Resize", ["c", "", "scales"], ["d"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
        helper.make_node("Conv", ["d", "sharp", "level"], ["e"], kernel_shape=[1, 1, 1]),
        helper.make_node("Sigmoid", ["e"], ["probability"]),
    ]  # fmt: skip
    axes = [1, 1, "z", "y", "x"]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("volume", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 2, "p", "q", "r"])],
        [numpy_helper.from_array(values, key) for key, values in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = folder / f"{name}.onnx"
    onnx.save(model, file)
    size = 2 * CONTEXT + 8
    settings = {
        "structures": ["dark", "bright"],
        "context": CONTEXT,
        "step": 8,
        "voxel_size_nm": 5.0,
        "normalisation": "none",
        "threshold": 0.5,
    }
    runtime.write_manifest(
        file,
        opset=17,
        probe_shapes={"volume": [1, 1, size, size, size]},
        what="Tells dark from bright.",
        made_by="tests",
        trained_on="nothing",
        settings=settings | changes,
    )
    return file.with_suffix(".yaml")
