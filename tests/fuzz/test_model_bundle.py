"""Mutated model bundles: each is read, or refused with one sentence."""

import copy
import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from retrieval.encoding.batches import usable
from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.errors import BundleError
from retrieval.indexing.build import bundle_rules
from tests.repetitions import repetitions

RULES = {
    "k": 25, "temperature": 0.3, "vote_threshold": 0.367, "slope": 0.82, "intercept": -0.53,
    "classifier_threshold": 0.419, "familiarity_limit": 0.9, "parts": ["finger"], "source": "x",
}  # fmt: skip
VALUES: list[Any] = [
    math.nan, math.inf, -math.inf, -1, 0, 1, 2, 1e308, -1e308, 1e-308, 10**400, 2**63, 0.5, True, False, None, "", "x",
    "1", "NaN", "\x1b[31mred\x1b[0m", "a\nb", "\u202e", "x" * 100_000, [], {}, [1, 2, 3], [None] * 3, [1e308] * 3,
    [0, 0, 0], [math.nan] * 3, [1] * 100_000, {"a": 1}, "../../etc/passwd", 16, 31, 32, 33, 4096, 4097,
]  # fmt: skip
PICTURES = [np.full((32, 32), value, np.uint8) for value in (40, 200)]


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def answers(folder: Path) -> None:
    """Use a bundle as a build and a query do. Its numbers must be finite, unless it is refused."""
    bundle = Bundle.open(folder)
    rules, _ = bundle_rules(bundle), bundle.seen()
    encoded = Encoder(bundle, 1).encode(PICTURES)
    sound = usable(encoded)
    assert np.isfinite(rules.probabilities(encoded.logits[sound])).all()
    assert all(text.isprintable() for text in (bundle.name, bundle.backbone))


def one_line(folder: Path) -> str:
    """The sentence with which a bundle is refused, or "" where it is read."""
    text = ""
    with np.errstate(all="ignore"):
        try:
            answers(folder)
        except BundleError as error:
            text = str(error)
            assert text.isprintable() and 0 < len(text) < 1000, text  # noqa: PT018
    return text


@pytest.fixture
def folder(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", rules=RULES)


def replaced(folder: Path, name: str, data: bytes) -> None:
    """Replace a file of the bundle, with the right checksum."""
    (folder / name).write_bytes(data)
    about = json.loads((folder / "model.json").read_text())
    about["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(about))


def test_every_value_of_model_json_may_be_anything(folder: Path) -> None:
    base = json.loads((folder / "model.json").read_text())
    draws = random.Random(0)
    refused = 0
    for _ in range(repetitions(600, 20_000)):
        about = copy.deepcopy(base)
        for _ in range(draws.choice((1, 1, 1, 2))):
            *path, last = draws.choice(list(leaves(about)))
            parent = about
            for key in path:
                parent = parent[key]
            if draws.random() < 0.1:
                del parent[last]
            else:
                parent[last] = draws.choice(VALUES)
        text = json.dumps(about).encode()
        if draws.random() < 0.1:
            at = draws.randrange(len(text))
            text = text[:at] + bytes([text[at] ^ 1 << draws.randrange(8)]) + text[at + 1 :]
        (folder / "model.json").write_bytes(text)
        refused += bool(one_line(folder))
    assert refused > 300


@pytest.mark.parametrize("name", ["encoder.onnx", "head.safetensors", "seen.safetensors"])
def test_every_file_may_have_other_bytes_and_their_right_checksum(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    draws = random.Random(name)
    for _ in range(repetitions(100, 5_000)):
        mutant = bytearray(data)
        for _ in range(draws.choice((1, 1, 3))):
            mutant[draws.randrange(len(mutant))] = draws.choice((0, 1, 127, 255, draws.randrange(256)))
        if draws.random() < 0.2:
            del mutant[draws.randrange(len(mutant)) :]
        replaced(folder, name, bytes(mutant))
        one_line(folder)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"digests": np.zeros(3, np.float32)},
        {"digests": np.zeros((2, 2), np.uint64)},
        {"digest": np.zeros(3, np.uint64)},
    ],
)
def test_malformed_lists_of_training_files_are_refused(folder: Path, tensors: dict[str, Any]) -> None:
    replaced(folder, "seen.safetensors", save(tensors))
    assert "seen.safetensors" in one_line(folder)


def test_a_head_without_channels_or_with_numbers_that_are_not_finite_is_refused(folder: Path) -> None:
    from safetensors.numpy import load

    head = load((folder / "head.safetensors").read_bytes())
    empty = {**head, "attention_weight": np.zeros(0, np.float32), "projection_weight": np.zeros((2, 0), np.float32)}
    replaced(folder, "head.safetensors", save(empty))
    assert "attention_weight is not of shape" in one_line(folder)
    replaced(folder, "head.safetensors", save({**head, "hidden_bias": np.full(2, np.nan, np.float32)}))
    assert "hidden_bias" in one_line(folder)


def test_deep_nesting_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text("[" * 100_000)
    assert "is damaged: model.json cannot be read" in one_line(folder)


onnx = pytest.importorskip("onnx", reason="the extra train is not installed")


def network(channels: int = 3, size: int = 32, change: Callable[[Any], None] = lambda graph: None) -> bytes:
    """(B, 3, S, S) -> (B, C, S/16, S/16): one convolution with stored weights."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.full((channels, 3, 16, 16), 1 / 768, np.float32)
    side = size // 16
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], strides=[16, 16])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", channels, side, side])],
        [numpy_helper.from_array(weights, "w")],
    )
    change(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def then(*nodes: tuple[str, dict[str, Any], Any]) -> Callable[[Any], None]:
    """Append operators to the network's output, each with a constant as second input if it has one."""

    def change(graph: Any) -> None:
        from onnx import helper, numpy_helper

        for number, (operator, options, constant) in enumerate(nodes):
            graph.node[-1].output[0] = f"y{number}"
            inputs = [f"y{number}"]
            if constant is not None:
                graph.initializer.append(numpy_helper.from_array(constant, f"c{number}"))
                inputs.append(f"c{number}")
            graph.node.append(helper.make_node(operator, inputs, ["y"], **options))

    return change


def with_input(graph: Any) -> None:
    from onnx import TensorProto, helper

    graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def with_output(graph: Any) -> None:
    from onnx import TensorProto, helper

    graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))


def of_rank_two(graph: Any) -> None:
    from onnx import TensorProto, helper

    then(("Reshape", {}, np.array([0, -1])))(graph)
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "n"]))


def of_whole_numbers(graph: Any) -> None:
    from onnx import TensorProto, helper

    then(("Cast", {"to": TensorProto.INT64}, None))(graph)
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, ["B", 3, 2, 2]))


def of_one_row(graph: Any) -> None:
    from onnx import helper, numpy_helper

    graph.node[-1].output[0] = "y0"
    graph.initializer.extend([numpy_helper.from_array(np.array([n]), name) for n, name in ((0, "from"), (1, "to"))])
    graph.node.append(helper.make_node("Slice", ["y0", "from", "to"], ["y"]))


def test_a_network_that_fits_is_used(folder: Path) -> None:
    replaced(folder, "encoder.onnx", network())
    assert one_line(folder) == ""


@pytest.mark.parametrize(
    "model",
    [
        network(channels=7),
        network(size=64),
        network(change=with_input),
        network(change=with_output),
        network(change=of_rank_two),
        network(change=of_whole_numbers),
        network(change=of_one_row),
        b"",
        b"\x00" * 5000,
    ],
)
def test_a_network_of_another_size_rank_type_or_number_of_ends_is_refused(folder: Path, model: bytes) -> None:
    replaced(folder, "encoder.onnx", model)
    assert "cannot be run" in one_line(folder)


@pytest.mark.parametrize("change", [then(("Add", {}, np.float32(np.nan))), then(("Add", {}, np.float32(np.inf)))])
def test_numbers_that_are_not_finite_are_left_to_the_radiograph(folder: Path, change: Callable[[Any], None]) -> None:
    replaced(folder, "encoder.onnx", network(change=change))
    assert not usable(Encoder.open(folder, 1).encode(PICTURES)).any()


def test_a_network_that_fails_writes_nothing_but_its_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def too_large(graph: Any) -> None:
        from onnx import helper, numpy_helper

        graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**30]), "shape"))
        graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["large"]))
        graph.node.append(helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
        graph.node[0].output[0] = "y0"
        graph.node.append(helper.make_node("Add", ["y0", "sum"], ["y"]))

    replaced(folder, "encoder.onnx", network(change=too_large))
    assert "cannot be run" in one_line(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("nested", [False, True])
def test_weights_outside_of_the_bundle_are_refused(
    folder: Path, nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import TensorProto, helper

    def external(graph: Any) -> None:
        tensor = graph.initializer[0]
        if nested:  # the weights are the value of an operator instead
            graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
            del graph.initializer[0]
            tensor = graph.node[0].attribute[0].t
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", str(3 * 768 * 4))):
            tensor.external_data.add(key=key, value=value)

    (tmp_path / "secret.bin").write_bytes(np.full(3 * 768, 0.01, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    replaced(folder, "encoder.onnx", network(change=external))
    assert "keeps weights in another file" in one_line(folder)


def endless(graph: Any) -> None:
    """A loop of 2^62 rounds around the output."""
    from onnx import TensorProto, helper, numpy_helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["a"], ["a2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a2", TensorProto.FLOAT, None),
        ],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(2**62), "m"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "t"))
    graph.node[-1].output[0] = "y0"
    graph.node.append(helper.make_node("Loop", ["m", "t", "y0"], ["y"], body=body))


def branching(graph: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    branch = helper.make_graph(
        [helper.make_node("Identity", ["y0"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(True), "t"))
    graph.node[-1].output[0] = "y0"
    graph.node.append(helper.make_node("If", ["t"], ["y"], then_branch=branch, else_branch=branch))


@pytest.mark.parametrize("change", [endless, branching])
def test_loops_and_branches_are_refused(folder: Path, change: Callable[[Any], None]) -> None:
    replaced(folder, "encoder.onnx", network(change=change))
    assert "has loops or branches" in one_line(folder)


@pytest.mark.parametrize("endless_inside", [False, True])
def test_functions_of_a_networks_own_are_refused(folder: Path, endless_inside: bool) -> None:
    from onnx import helper, load_from_string

    model = load_from_string(network(change=endless if endless_inside else lambda graph: None))
    opsets = [helper.make_opsetid("", 17)]
    body = [*model.graph.node]
    own = helper.make_function("own", "F", ["x", *(each.name for each in model.graph.initializer)], ["y"], body, opsets)
    model.functions.append(own)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("F", list(own.input), ["y"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    replaced(folder, "encoder.onnx", model.SerializeToString())
    assert "has functions of its own" in one_line(folder)


def test_a_name_with_the_word_location_is_no_outside_file(folder: Path) -> None:
    def named(graph: Any) -> None:
        graph.node[0].name = "location"

    replaced(folder, "encoder.onnx", network(change=named))
    shutil.copy(folder / "encoder.onnx", folder / "copy")
    assert one_line(folder) == ""
