"""Writes tests/golden/tensor/k_blocks.bin: the K types as ggml's own library quantises them (the `gguf` package can't).

  make_k_goldens.py LIBGGML_BASE [OUT]

LIBGGML_BASE is libggml-base.so of llama.cpp or llama-cpp-python. The layout is that of make_block_goldens.py, with
records "q:Q4_K" and so on.
"""

import ctypes
import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

TYPES = ["Q4_K", "Q5_K", "Q6_K"]
BLOCK = 256


def cases():
    rng = np.random.default_rng(9)
    blocks = [rng.standard_normal(BLOCK) * scale for scale in (1.0, 0.05, 0.02, 1e-3, 300.0)]
    blocks.append(rng.standard_normal(BLOCK) * np.repeat(10.0 ** rng.integers(-4, 3, 16), 16))  # uneven sub-blocks
    blocks.append(rng.standard_t(2, BLOCK) * 0.03)  # long tails, as trained weights have
    blocks.append(np.abs(rng.standard_normal(BLOCK)) + 0.5)  # all above zero: no min
    blocks.append(-np.abs(rng.standard_normal(BLOCK)) - 0.5)
    blocks.append(np.zeros(BLOCK))
    blocks.append(np.repeat([0.25, -0.25, 0, 3.0], 64))  # flat sub-blocks
    blocks.append(np.tile([1.5, -1.5], 128))  # ties for the largest magnitude
    blocks.append((np.arange(BLOCK) % 32 - 16) * 0.5)  # exact levels and halves
    blocks.append(np.where(np.arange(BLOCK) == 77, 40.0, rng.standard_normal(BLOCK) * 1e-4))  # one far out
    blocks.append(rng.standard_normal(BLOCK) * 1e-16)  # next to nothing
    blocks.append(rng.standard_normal(BLOCK) * 2e-6)  # scales become subnormal halves
    return np.concatenate(blocks).astype(np.float32)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    values = np.ascontiguousarray(cases())
    out = b""
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        stored = np.zeros(values.size // BLOCK * GGML_QUANT_SIZES[kind][1], dtype=np.uint8)
        written = ggml.ggml_quantize_chunk(kind.value, values.ctypes.data, stored.ctypes.data, 0, 1, values.size, None)
        assert written == stored.size
        label = "q:" + name
        out += bytes([len(label)]) + label.encode() + struct.pack("<II", values.size, stored.size)
        out += stored.tobytes() + values.tobytes()
    path = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parents[1] / "golden/tensor/k_blocks.bin")
    path.write_bytes(out)


main()
