"""Networks are what their manifest says, or are not used, and say what they run on."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from agent import settings
from models import runtime
from models.runtime import ModelError, Options

KERNEL = np.random.default_rng(3).standard_normal((4, 1, 5, 5)).astype(np.float32)


def network(folder: Path, name: str = "net", *, nodes: list[Any] | None = None, **facts: Any) -> Path:
    """A convolution of any image, with its manifest."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "rows", "columns"])
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, None)
    nodes = nodes or [helper.make_node("Conv", ["image", "kernel"], ["maps"])]
    graph = helper.make_graph(nodes, name, [image], [maps], [numpy_helper.from_array(KERNEL, "kernel")])
    file = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    said = {"what": "a test", "made_by": "pytest", "trained_on": "nothing"} | facts
    runtime.write_manifest(file, opset=17, probe_shapes={"image": [1, 1, 32, 40]}, **said)
    return file.with_suffix(".yaml")


def change(manifest: Path, **values: Any) -> None:
    plain = yaml.safe_load(manifest.read_text())
    manifest.write_text(yaml.safe_dump(plain | values))


def test_a_network_answers_as_its_formula_does_and_says_what_it_runs_on(tmp_path: Path) -> None:
    from scipy.signal import correlate2d

    model = runtime.load(network(tmp_path))
    image = np.random.default_rng(1).standard_normal((33, 47)).astype(np.float32)
    maps = model.run(image[None, None])["maps"][0]
    for found, kernel in zip(maps, KERNEL[:, 0], strict=True):
        np.testing.assert_allclose(found, correlate2d(image, kernel, mode="valid"), atol=1e-4)
    assert model.provider in ("CPU", "CUDA")
    assert len(model.fingerprint) == 16


def test_an_answer_does_not_depend_on_the_batch_or_the_threads(tmp_path: Path) -> None:
    path = network(tmp_path)
    images = np.random.default_rng(2).standard_normal((7, 1, 32, 32)).astype(np.float32)
    alone = np.concatenate([runtime.load(path).run(image[None])["maps"] for image in images])
    for threads in (1, 4):
        model = runtime.load(path, Options(threads=threads))
        for size in (1, 3, 100):
            np.testing.assert_allclose(model.batches(images, size)["maps"], alone, atol=1e-6)
    assert model.batches(images[:0], 4)["maps"].shape[0] == 0


def test_a_network_is_opened_once(tmp_path: Path) -> None:
    path = network(tmp_path)
    assert runtime.load(path) is runtime.load(path)
    assert runtime.load(path) is not runtime.load(path, Options(threads=1))


def test_damaged_weights_are_refused_with_both_hashes(tmp_path: Path) -> None:
    path = network(tmp_path)
    weights = path.with_suffix(".onnx")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=r"sha256 .* is not the manifest's"):
        runtime.load(path)


def test_another_answer_than_the_stored_one_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = network(tmp_path)
    plain = yaml.safe_load(path.read_text())
    plain["probe"]["outputs"]["maps"][5] += 1.0
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(ModelError, match="output maps is off by"):
        runtime.load(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights 'nothing'"):
        runtime.load("nothing")
    path = network(tmp_path)
    path.with_suffix(".onnx").unlink()
    with pytest.raises(ModelError, match=r"net\.onnx: No such file"):
        runtime.load(path)


@pytest.mark.parametrize("text", ["", "- 1", "name: net", "a: [", "name: net\nstrange: 1"])
def test_what_is_no_manifest_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match="is no manifest") as raised:
        runtime.load(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    import hashlib

    path = network(tmp_path)
    path.with_suffix(".onnx").write_bytes(b"not a network")
    change(path, sha256=hashlib.sha256(b"not a network").hexdigest())
    with pytest.raises(ModelError, match="ONNX Runtime refuses these weights"):
        runtime.load(path)


def test_weights_that_point_to_another_file_are_not_followed(tmp_path: Path) -> None:
    path = network(tmp_path)
    file = path.with_suffix(".onnx")
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="beside.bin", size_threshold=0)
    import hashlib

    change(path, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert (tmp_path / "beside.bin").exists()
    with pytest.raises(ModelError, match="ONNX Runtime refuses these weights"):
        runtime.load(path)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (np.zeros((1, 2, 32, 32), np.float32), r"input image of shape \(1, 2, 32, 32\)"),
        (np.zeros((32, 32), np.float32), "input image of shape"),
        ({"picture": np.zeros((1, 1, 32, 32), np.float32)}, r"inputs \['picture'\] given"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_by_name(tmp_path: Path, inputs: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        runtime.load(network(tmp_path)).run(inputs)


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """A loop of a billion rounds, which nothing but the limit ends."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    # the first pixel of the image says how many rounds
    nodes = [
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array([0], np.int64))),
        helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("Reshape", ["image", "flat"], ["line"]),
        helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(np.array([-1], np.int64))),
        helper.make_node("Gather", ["line", "zero"], ["first"]),
        helper.make_node("Cast", ["first"], ["rounds"], to=TensorProto.INT64),
        helper.make_node("Loop", ["rounds", "true", "image"], ["maps"], body=body),
    ]
    nodes.insert(2, nodes.pop(3))
    model = runtime.load(network(tmp_path, nodes=nodes, seed=2))
    endless = np.full((1, 1, 32, 32), 1e12, np.float32)
    with pytest.raises(ModelError, match=r"no answer within 0\.2 s"):
        model.run(endless, time_limit_s=0.2)
    assert model.run(np.zeros((1, 1, 32, 32), np.float32))["maps"].shape == (1, 1, 32, 32), "it answers again"


def test_a_provider_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="provider tensorrt is not in this ONNX Runtime"):
        Options(providers=("tensorrt",)).names(["CPUExecutionProvider"])
    assert Options().names(["CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert Options().names(both) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert Options(providers=("tensorrt",)).names(both) == ["TensorrtExecutionProvider", "CPUExecutionProvider"]


def test_a_config_may_name_every_provider_that_networks_know() -> None:
    assert get_args(settings.Provider) == get_args(runtime.Provider)


def test_all_weights_of_this_package_answer_their_stored_question() -> None:
    for manifest in sorted(runtime.WEIGHTS.glob("*.yaml")):
        assert runtime.load(manifest.stem, Options(providers=("cpu",))).provider == "CPU"
        assert manifest.with_suffix(".md").exists(), f"{manifest.stem} has no model card"
