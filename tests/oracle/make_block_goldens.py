"""Writes tests/golden/tensor/blocks.bin: stored blocks and their values by the `gguf` package.

Layout, little-endian: for every type a record of
  name length u8, name, elements u32, stored length u32, stored bytes, f32 values[elements]
for types that are dequantised ("d:Q4_K"), and for quantisation ("q:Q4_0") the f32 values first mean the input:
  name, elements, stored length, stored bytes (expected result), f32 input[elements].
"""

import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

READ = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
WRITE = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
# where the f16 scales and mins of a block stand
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}


def record(name, elements, stored, values):
    stored, values = stored.tobytes(), values.astype("<f4").tobytes()
    return bytes([len(name)]) + name.encode() + struct.pack("<II", elements, len(stored)) + stored + values


def main():
    rng = np.random.default_rng(7)
    out = b""
    for name in READ:
        kind = GGMLQuantizationType[name]
        block, size = GGML_QUANT_SIZES[kind]
        if name in ("F16", "BF16"):
            stored = rng.integers(0, 1 << 16, 512, dtype=np.uint16)
            stored = stored[np.isfinite(dequantize(stored.view(np.uint8).reshape(1, -1), kind)).ravel()][:448]
            stored[:4] = [0, 0x8000, 1, 0x03ff]  # zeros and subnormals
            stored = stored.view(np.uint8).reshape(1, -1)
        else:
            stored = rng.integers(0, 256, (4, size), dtype=np.uint8)
            for at in SCALES[name]:
                scale = (rng.standard_normal(4) * 0.02).astype(np.float16)
                scale[3] = np.float16(3e-6)  # subnormal
                stored[:, at:at + 2] = scale.view(np.uint8).reshape(4, 2)
            stored = stored.reshape(1, -1)
        values = dequantize(stored, kind).ravel()
        out += record("d:" + name, values.size, stored, values)
    for name in WRITE:
        kind = GGMLQuantizationType[name]
        values = (rng.standard_normal(512) * np.repeat(10.0 ** rng.integers(-4, 3, 16), 32)).astype(np.float32)
        values[64:96] = 0  # a block of zeros
        values[96:128] = 0.25  # one value
        values[128:160] = np.tile([1.5, -1.5], 16)  # ties for the largest magnitude
        values[160:192] = (np.arange(32) - 16) * 0.5  # exact levels and halves
        stored = quantize(values.reshape(1, -1), kind)
        out += record("q:" + name, values.size, np.ascontiguousarray(stored), values)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "golden/tensor/blocks.bin")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)


main()
