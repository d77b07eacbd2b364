#include <algorithm>

#include "core/thread_pool.h"
#include "kernels/gemm_kernels.h"
#include "kernels/scratch.h"

namespace thimble::gemm {
namespace {

constexpr int64_t kPanelBytes = 704 << 10;    // packed weights that stay in a core's second-level cache
constexpr int64_t kFewRowsBytes = 256 << 10;  // the same where every thread packs its own
constexpr int64_t kFewRows = 64;              // up to here, packing costs as much as the product

int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// How a product is cut: blocks of n columns x k inner elements whose packed weights fit into a cache.
struct Cut {
  int64_t n;
  int64_t k;
};

// The deepest piece: 14 rows of it stay in a first-level cache beside what streams through.
constexpr int64_t kDeepest = 640;

int64_t even_piece(int64_t total, int64_t most, int64_t step) {
  most = std::max(step, most / step * step);
  const int64_t pieces = (total + most - 1) / most;
  return up((total + pieces - 1) / pieces, step);
}

// most_n: no more columns than these in a block.
template <class E>
Cut cut(const Factor<E>& f, int64_t cols, int64_t second_depth, int64_t width, int64_t bytes, int64_t most_n) {
  const int64_t block = dtype_info(f.w->type).block;  // pieces of a stored row are whole blocks
  const int64_t n_step = up(width, f.by_rows ? 1 : block), k_step = f.by_rows ? up(2, block) : 2;
  const int64_t elements = bytes / static_cast<int64_t>(sizeof(E));
  const int64_t k = even_piece(f.depth, kDeepest, k_step);
  const int64_t n = even_piece(cols, std::min(most_n, elements / (k + second_depth)), n_step);
  return {std::min(n, up(cols, width)), k};
}

// A block's place: columns [n, n + cols), inner elements [k, k + depth) of the first factor and, in the last block
// of a column, all of the second.
template <class E>
struct Block {
  const Kernels<E>* kernels;
  const TileSet<E>* set;
  const Factor<E>* first;
  const Factor<E>* second;
  int64_t n, cols, k, depth, second_depth;  // depths as packed: multiples of the pair
  E* packed;

  int64_t panels() const { return (cols + set->width - 1) / set->width; }
  int64_t panel_elements() const { return (depth + second_depth) * set->width; }

  void pack_factor(const Factor<E>& f, int64_t from, int64_t f_depth, E* place, int64_t piece, int64_t pieces) const {
    const int64_t width = set->width;
    if (f.by_rows) {
      for (int64_t p = panels() * piece / pieces; p < panels() * (piece + 1) / pieces; ++p) {
        const int64_t at = n + p * width;
        kernels->pack_rows(*f.w, at, static_cast<int>(std::min(width, n + cols - at)), from, f_depth,
                           static_cast<int>(width), place + p * panel_elements());
      }
      return;
    }
    const int64_t pairs = up(f_depth, kernels->pair) / kernels->pair;
    const int64_t begin = pairs * piece / pieces * kernels->pair;
    const int64_t end = std::min(pairs * (piece + 1) / pieces * kernels->pair, f_depth);
    if (begin < end)
      kernels->pack_cols(*f.w, n, cols, from + begin, end - begin, static_cast<int>(width), place + begin * width,
                         panel_elements());
  }
  void pack(int64_t piece, int64_t pieces) const {
    pack_factor(*first, k, std::min(depth, first->depth - k), packed, piece, pieces);
    if (second_depth > 0) pack_factor(*second, 0, second->depth, packed + depth * set->width, piece, pieces);
  }
  // one tile: result rows [row, row + rows) of all panels
  void run(int64_t row, int64_t rows, float* c, int64_t ldc, bool accumulate) const {
    TileInput<E> input;
    input.a[0] = first->a + row * first->stride + k;
    input.a[1] = second_depth > 0 ? second->a + row * second->stride : nullptr;
    input.stride[0] = first->stride;
    input.stride[1] = second->stride;
    input.depth[0] = depth;
    input.depth[1] = second_depth;
    const Tile<E> tile = set->tiles[rows - 1];
    for (int64_t p = 0; p < panels(); ++p) {
      input.panel = packed + p * panel_elements();
      const int64_t at = n + p * set->width;
      tile(input, c + row * ldc + at, ldc, static_cast<int>(std::min<int64_t>(set->width, n + cols - at)), accumulate);
    }
  }
};

}  // namespace

template <class E>
void multiply(const Kernels<E>& kernels, int64_t rows, int64_t cols, const Factor<E>& first, const Factor<E>& second,
              float* c, bool accumulate) {
  if (rows == 0 || cols == 0) return;
  const TileSet<E>* set = &kernels.sets[0];  // the narrowest that takes all columns, or the widest
  for (const TileSet<E>& s : kernels.sets)
    if (s.width > set->width && set->width < cols) set = &s;
  const int64_t second_depth = up(second.depth, kernels.pair);
  const bool few = rows <= kFewRows;
  const int64_t width_of_task = cols / (2 * threads().size());
  const Cut size = cut(first, cols, second_depth, set->width, few ? kFewRowsBytes : kPanelBytes,
                       few ? std::max<int64_t>(width_of_task, 64) : cols);
  const int64_t n_blocks = (cols + size.n - 1) / size.n, tiles = (rows + set->rows - 1) / set->rows;
  const size_t packed_elements =
      static_cast<size_t>((up(size.k, kernels.pair) + second_depth) * up(size.n, set->width));

  const auto block_at = [&](int64_t n_block, int64_t k, E* packed) {
    const int64_t n = n_block * size.n, depth = std::min(size.k, first.depth - k);
    return Block<E>{&kernels,
                    set,
                    &first,
                    &second,
                    n,
                    std::min(size.n, cols - n),
                    k,
                    up(depth, kernels.pair),
                    k + depth >= first.depth ? second_depth : 0,
                    packed};
  };
  // rows are dealt out evenly: a tile of one or two rows would wait for its own sums
  const auto tile_begin = [&](int64_t t) { return rows / tiles * t + std::min(t, rows % tiles); };

  if (few) {
    threads().parallel_for(n_blocks, [&](int64_t n_block, int) {
      const Scratch<E> packed(packed_elements);
      for (int64_t k = 0; k < first.depth; k += size.k) {
        const Block<E> block = block_at(n_block, k, packed.data());
        block.pack(0, 1);
        for (int64_t t = 0; t < tiles; ++t)
          block.run(tile_begin(t), tile_begin(t + 1) - tile_begin(t), c, cols, accumulate || k > 0);
      }
    });
    return;
  }

  const Scratch<E> packed(packed_elements);
  const int64_t workers = threads().size();
  const int64_t chunk = std::clamp<int64_t>(tiles / (workers * 8), 1, 8);
  for (int64_t n_block = 0; n_block < n_blocks; ++n_block)
    for (int64_t k = 0; k < first.depth; k += size.k) {
      const Block<E> block = block_at(n_block, k, packed.data());
      const int64_t pieces = workers * 4;
      threads().parallel_for(pieces, [&](int64_t piece, int) { block.pack(piece, pieces); });
      threads().parallel_for((tiles + chunk - 1) / chunk, [&](int64_t task, int) {
        for (int64_t t = task * chunk; t < std::min(tiles, (task + 1) * chunk); ++t)
          block.run(tile_begin(t), tile_begin(t + 1) - tile_begin(t), c, cols, accumulate || k > 0);
      });
    }
}

template void multiply(const Kernels<float>&, int64_t, int64_t, const Factor<float>&, const Factor<float>&, float*,
                       bool);
template void multiply(const Kernels<uint16_t>&, int64_t, int64_t, const Factor<uint16_t>&, const Factor<uint16_t>&,
                       float*, bool);

}  // namespace thimble::gemm
