#include "kernels/packed_matmul.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "core/buffer.h"
#include "core/thread_pool.h"
#include "kernels/packed_layout.h"

namespace thimble {
namespace {
using namespace packed;

// What one call needs of its activations. Byte-wide and float forms are made once, whatever number of weights reads
// them.
struct Needs {
  bool coarse = false;  // bytes, two in outliers
  bool fine = false;    // two bytes everywhere
  bool halves = false;
  bool pairs = false;
  bool values = false;
};

bool uses_pairs(PackedKind kind, CpuLevel level) { return kind == PackedKind::kBF16 && has_bf16_products(level); }

Needs needs_of(std::span<const PackedMatmul> products, CpuLevel level) {
  Needs needs;
  for (const PackedMatmul& product : products) {
    const PackedKind kind = product.weight->kind();
    if (unit_layout(kind).groups > 0) {
      (product.weight->precision() == MatmulPrecision::kFine ? needs.fine : needs.coarse) = true;
      needs.halves |= kind == PackedKind::kU6;
    } else {
      (uses_pairs(kind, level) ? needs.pairs : needs.values) = true;
    }
  }
  return needs;
}

// Memory that a thread keeps from call to call, growing as needed.
class Scratch {
 public:
  std::byte* get(size_t bytes) {
    if (buffer_.size() < bytes) buffer_ = ByteBuffer(bytes + bytes / 2);
    return buffer_.data();
  }

 private:
  ByteBuffer buffer_;
};

struct RowTile {
  int64_t first = 0;  // row of x
  int valid = 0;
  int rows = 0;        // class
  int64_t before = 0;  // laid-out rows before this tile
};

// Full tiles of 16; the rest is a class, or padded to one by a row, or split.
std::vector<RowTile> split_rows(int64_t rows) {
  std::vector<RowTile> tiles;
  for (int64_t first = 0, before = 0; first < rows;) {
    const int left = static_cast<int>(std::min<int64_t>(rows - first, kMaxRows));
    RowTile tile{first, 0, 0, before};
    for (const int size : kRowClasses) {
      if (size <= left) tile.rows = tile.valid = size;
      if (size == left + 1 && tile.rows < left) {
        tile.rows = size;
        tile.valid = left;
      }
    }
    // Of two ways, the one that reaches further: 7 is 8 with a zero row, 9 is 8 and 1.
    first += tile.valid;
    before += tile.rows;
    tiles.push_back(tile);
  }
  return tiles;
}

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// One quantised form of all rows.
struct Quantized {
  int8_t* high = nullptr;
  int8_t* low = nullptr;
  float* scale = nullptr;
  float* sum = nullptr;
  int32_t* correction = nullptr;
  int32_t* halves = nullptr;
  uint8_t* fine = nullptr;  // [tile][group]

  static size_t bytes(int64_t rows, int64_t groups, size_t tiles, bool halves) {
    const auto cells = static_cast<size_t>(rows * groups);
    return 2 * aligned(cells * kGroup) + 3 * aligned(cells * 4) + (halves ? aligned(cells * 8) : 0) +
           aligned(tiles * static_cast<size_t>(groups));
  }
  void place(std::byte*& at, int64_t rows, int64_t groups, size_t tiles, bool with_halves) {
    const auto cells = static_cast<size_t>(rows * groups);
    const auto take = [&at](size_t size) {
      std::byte* p = at;
      at += aligned(size);
      return p;
    };
    high = reinterpret_cast<int8_t*>(take(cells * kGroup));
    low = reinterpret_cast<int8_t*>(take(cells * kGroup));
    scale = reinterpret_cast<float*>(take(cells * 4));
    sum = reinterpret_cast<float*>(take(cells * 4));
    correction = reinterpret_cast<int32_t*>(take(cells * 4));
    if (with_halves) halves = reinterpret_cast<int32_t*>(take(cells * 8));
    fine = reinterpret_cast<uint8_t*>(take(tiles * static_cast<size_t>(groups)));
  }
};

TileKernel kernel(CpuLevel level, PackedKind kind, int rows) {
  TileKernel found = nullptr;
  if (level >= CpuLevel::kAvx512) {
    found = unit_layout(kind).groups > 0 ? avx512_kernel(kind, rows)
                                         : avx512_float_kernel(kind, rows, uses_pairs(kind, level));
  } else if (level == CpuLevel::kAvx2) {
    found = avx2_kernel(kind, rows);
  } else if (level >= CpuLevel::kNeon) {
    if (level == CpuLevel::kNeonBf16) found = neon_bf16_kernel(kind);
    if (level == CpuLevel::kNeonDot) found = neon_dot_kernel(kind);
    if (found == nullptr) found = neon_kernel(kind);
  }
  return found != nullptr ? found : plain_kernel(kind, rows);
}

// A run of one product's tiles.
struct Chunk {
  const PackedMatmul* product = nullptr;
  int64_t first = 0;
  int64_t last = 0;
};

}  // namespace

void packed_matmul(const float* x, int64_t rows, std::span<const PackedMatmul> products) {
  if (rows <= 0 || products.empty()) return;
  const CpuLevel level = cpu_level();
  const int64_t in = products.front().weight->in();
  const int64_t groups = group_count(in);
  const int64_t in_even = (in + 1) / 2 * 2;
  const Needs needs = needs_of(products, level);
  const std::vector<RowTile> tiles = split_rows(rows);
  const int64_t laid_out = tiles.back().before + tiles.back().rows;

  static thread_local Scratch scratch;
  const size_t quantized_bytes = Quantized::bytes(laid_out, groups, tiles.size(), needs.halves);
  const auto cells = static_cast<size_t>(laid_out * in_even);
  std::byte* at = scratch.get((needs.coarse + needs.fine) * quantized_bytes + (needs.values ? aligned(cells * 4) : 0) +
                              (needs.pairs ? aligned(cells * 2) : 0));
  Quantized coarse, fine;
  if (needs.coarse) coarse.place(at, laid_out, groups, tiles.size(), needs.halves);
  if (needs.fine) fine.place(at, laid_out, groups, tiles.size(), needs.halves);
  float* const values = needs.values ? reinterpret_cast<float*>(at) : nullptr;
  if (needs.values) at += aligned(cells * 4);
  uint32_t* const pairs = needs.pairs ? reinterpret_cast<uint32_t*>(at) : nullptr;

  const auto quantize = level >= CpuLevel::kAvx512 ? quantize_rows_avx512 : quantize_rows;
  const auto lay_out = level >= CpuLevel::kAvx512 ? lay_out_floats_avx512 : lay_out_floats;
  const auto prepare = [&](int64_t index, int) {
    const RowTile& tile = tiles[static_cast<size_t>(index)];
    const int64_t cell = tile.before * groups;
    for (const Quantized* form : {&coarse, &fine}) {
      if (form->high == nullptr) continue;
      quantize(x + tile.first * in, in, form == &fine,
               {tile.rows, tile.valid, form->high + cell * kGroup, form->low + cell * kGroup, form->scale + cell,
                form->sum + cell, form->correction + cell, form->halves == nullptr ? nullptr : form->halves + 2 * cell,
                form->fine + index * groups});
    }
    if (needs.values || needs.pairs)
      lay_out(x + tile.first * in, in,
              {tile.rows, tile.valid, needs.values ? values + tile.before * in_even : nullptr,
               needs.pairs ? pairs + tile.before * in_even / 2 : nullptr});
  };
  // A few rows are laid out sooner than other threads could be woken.
  if (rows * in <= 16384)
    for (size_t i = 0; i < tiles.size(); ++i) prepare(static_cast<int64_t>(i), 0);
  else
    threads().parallel_for(static_cast<int64_t>(tiles.size()), prepare);

  // Chunks are small enough that threads finish together, large enough that taking one costs nothing.
  int64_t weight_tiles = 0;
  for (const PackedMatmul& product : products) weight_tiles += (product.weight->out() + kLanes - 1) / kLanes;
  const int64_t pool = threads().size();
  const int64_t per_chunk = std::max<int64_t>(1, weight_tiles / (pool * 8));
  std::vector<Chunk> chunks;
  for (const PackedMatmul& product : products) {
    assert(product.weight->in() == in);
    const int64_t count = (product.weight->out() + kLanes - 1) / kLanes;
    for (int64_t first = 0; first < count; first += per_chunk)
      chunks.push_back({&product, first, std::min(count, first + per_chunk)});
  }
  // Rows in parts whose activations stay in a core's second-level cache while weight tiles pass by. Where there are
  // many, each thread has parts of its own, the rows that it works on in other loops, too; few read every weight once.
  const auto row_tiles = static_cast<int64_t>(tiles.size());
  const int64_t cached = std::max<int64_t>(1, (int64_t{384} << 10) / (in * kMaxRows));
  const int64_t tiles_per_part = row_tiles < 4 * pool ? cached : std::min(cached, (row_tiles + pool - 1) / pool);
  const int64_t parts = (row_tiles + tiles_per_part - 1) / tiles_per_part;

  const auto run = [&](int64_t index, int) {
    const Chunk& chunk = chunks[static_cast<size_t>(index) % chunks.size()];
    const int64_t part = index / static_cast<int64_t>(chunks.size());
    const PackedWeight& weight = *chunk.product->weight;
    const Quantized& form = weight.precision() == MatmulPrecision::kFine ? fine : coarse;
    for (int64_t w = chunk.first; w < chunk.last; ++w) {
      for (int64_t t = part * tiles_per_part; t < std::min(row_tiles, (part + 1) * tiles_per_part); ++t) {
        const RowTile& tile = tiles[static_cast<size_t>(t)];
        ActivationTile a;
        a.rows = tile.rows;
        a.valid = tile.valid;
        if (unit_layout(weight.kind()).groups > 0) {
          const int64_t cell = tile.before * groups;
          a.high = form.high + cell * kGroup;
          a.low = form.low + cell * kGroup;
          a.scale = form.scale + cell;
          a.sum = form.sum + cell;
          a.correction = form.correction + cell;
          a.halves = form.halves == nullptr ? nullptr : form.halves + 2 * cell;
          a.fine = form.fine + t * groups;
        }
        if (needs.values) a.values = values + tile.before * in_even;
        if (needs.pairs) a.pairs = pairs + tile.before * in_even / 2;
        const int64_t column = w * kLanes;
        const TileOutput out{chunk.product->y + tile.first * weight.out() + column, weight.out(),
                             static_cast<int>(std::min<int64_t>(kLanes, weight.out() - column)),
                             chunk.product->bias == nullptr ? nullptr : chunk.product->bias + column,
                             chunk.product->add};
        kernel(level, weight.kind(), tile.rows)(weight.tile(w), in, a, out);
      }
    }
  };
  threads().parallel_for(static_cast<int64_t>(chunks.size()) * parts, run);
}

}  // namespace thimble
