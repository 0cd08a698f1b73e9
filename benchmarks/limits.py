"""What this machine allows: how near encoding and exact search come to its arithmetic and to its memory.

    OPENBLAS_NUM_THREADS=1 python benchmarks/limits.py [--runs 5]

One thread. The arithmetic is that of a large float32 matrix product, the memory's rate that of a copy larger than every
cache. The encoder's operations are counted in its network: two for each weight of a convolution at each position. An
exact search has to read every vector once. (Depthwise convolutions are bound by memory, so no network of them can
reach the rate of a matrix product.)
"""

import argparse
import time
from collections.abc import Callable

import faiss
import numpy as np
import onnx

from benchmarks._timing import alternate, machine, ratio, show
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder

SIDE, FLOATS = 2_048, 64 * 2**20
VECTORS, DIMENSION = 1_000_000, 128


def operations(network: onnx.ModelProto, size: int) -> int:
    """Multiplications and additions of the convolutions for one picture of `size` x `size`."""
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(network, strict_mode=True, data_prop=True).graph
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    shapes |= {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.output}
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            height, width = shapes[node.output[0]][2:]
            total += 2 * weights[node.input[1]] * height * width
    return total


def timed(action: Callable[[], object], amount: float) -> Callable[[], float]:
    """A function that gives `amount` a second, in thousand millions."""

    def run() -> float:
        started = time.perf_counter()
        action()
        return amount / (time.perf_counter() - started) / 1e9

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("numpy", "onnxruntime", "faiss-cpu")
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    a, b = rng.random((2, SIDE, SIDE), np.float32)
    source = rng.random(FLOATS, np.float32)
    target = np.empty_like(source)
    vectors = rng.random((VECTORS, DIMENSION), np.float32)
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(vectors)
    encoder = Encoder.open(BUNDLED, threads=1)
    size = encoder.bundle.preprocessing.size
    picture = [rng.integers(0, 256, (size, size, 3), np.uint8)]
    flops = operations(onnx.load(BUNDLED / "encoder.onnx"), size)
    print(f"the encoder needs {flops / 1e9:.2f} thousand million operations for a radiograph of {size} x {size}")
    product, encoding, copy, search = alternate(
        options.runs,
        timed(lambda: a @ b, 2 * SIDE**3),
        timed(lambda: encoder.encode_prepared(picture), flops),
        timed(lambda: np.copyto(target, source), 2 * source.nbytes),
        timed(lambda: flat.search(vectors[:1], 15), vectors.nbytes),
    )
    show("matrix product", product, "GFLOP/s")
    show("encoder", encoding, "GFLOP/s")
    show("copy", copy, "GB/s")
    show(f"exact search of {VECTORS:,} x {DIMENSION}", search, "GB/s")
    ratio("encoder / matrix product", encoding, product)
    ratio("exact search / copy", search, copy)


if __name__ == "__main__":
    main()
