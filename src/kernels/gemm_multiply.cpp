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

// The deepest piece: a tile's rows of it stay in a first-level cache beside what streams through. Pieces depend on
// the weight alone, so that a row's sums are the same whatever the rows and threads.
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
  // one tile: result rows [row, row + rows) of all panels. a: the tile's rows of the first factor at k; c: where row
  // `row` of the block's first column lies.
  void run(const E* a, int64_t stride, int64_t row, int64_t rows, float* c, int64_t ldc, bool accumulate) const {
    TileInput<E> input;
    input.a[0] = a;
    input.a[1] = second_depth > 0 ? second->a + row * second->stride : nullptr;
    input.stride[0] = stride;
    input.stride[1] = second->stride;
    input.depth[0] = depth;
    input.depth[1] = second_depth;
    const Tile<E> tile = set->tiles[rows - 1];
    for (int64_t p = 0; p < panels(); ++p) {
      input.panel = packed + p * panel_elements();
      const int64_t at = p * set->width;
      tile(input, c + at, ldc, static_cast<int>(std::min<int64_t>(set->width, cols - at)), accumulate);
    }
  }
};

template <class E>
class Product {
 public:
  Product(const Kernels<E>& kernels, int64_t rows, int64_t cols, const Factor<E>& first, const Factor<E>& second,
          const Hooks<E>& hooks)
      : kernels_(kernels), rows_(rows), cols_(cols), first_(first), second_(second), hooks_(hooks) {
    set_ = &kernels.sets[0];  // the narrowest that takes all columns, or the widest
    for (const TileSet<E>& s : kernels.sets)
      if (s.width > set_->width && set_->width < cols) set_ = &s;
    second_depth_ = up(second.depth, kernels.pair);
    tiles_ = (rows + set_->rows - 1) / set_->rows;
    few_ = rows <= kFewRows && !hooks.finish && !hooks.prepare;
    const int64_t task_cols = std::max<int64_t>(cols / (2 * threads().size()), 64);
    size_ = cut(first, cols, second_depth_, set_->width, few_ ? kFewRowsBytes : kPanelBytes, few_ ? task_cols : cols);
    if (hooks.block > 0) size_.n = hooks.block;
    packed_elements_ = static_cast<size_t>((up(size_.k, kernels.pair) + second_depth_) * up(size_.n, set_->width));
  }

  void run(float* c, bool accumulate) const {
    if (few_)
      packing_alone(c, accumulate);
    else
      packing_together(c, accumulate);
  }

 private:
  // Few rows: every task packs its own columns.
  void packing_alone(float* c, bool accumulate) const {
    threads().parallel_for(n_blocks(), [&](int64_t n_block, int) {
      const Scratch<E> packed(packed_elements_);
      for (int64_t k = 0; k < first_.depth; k += size_.k) {
        const Block<E> block = block_at(n_block, k, packed.data());
        block.pack(0, 1);
        for (int64_t t = 0; t < tiles_; ++t) run_tile(block, t, c + block.n, cols_, accumulate || k > 0);
      }
    });
  }

  // Many rows: a block is packed by all threads, then used by all of them for their rows.
  void packing_together(float* c, bool accumulate) const {
    const Scratch<E> packed(packed_elements_);
    const Scratch<float> unstored(static_cast<size_t>(hooks_.finish ? rows_ * size_.n : 0));
    const int64_t pieces = threads().size() * 4;
    const int64_t chunk = std::clamp<int64_t>(tiles_ / (threads().size() * 8), 1, 8);
    for (int64_t n_block = 0; n_block < n_blocks(); ++n_block)
      for (int64_t k = 0; k < first_.depth; k += size_.k) {
        const Block<E> block = block_at(n_block, k, packed.data());
        threads().parallel_for(pieces, [&](int64_t piece, int) { block.pack(piece, pieces); });
        threads().parallel_for((tiles_ + chunk - 1) / chunk, [&](int64_t task, int) {
          for (int64_t t = task * chunk; t < std::min(tiles_, (task + 1) * chunk); ++t)
            if (hooks_.finish)
              run_tile(block, t, unstored.data(), size_.n, k > 0);
            else
              run_tile(block, t, c + block.n, cols_, accumulate || k > 0);
        });
      }
  }

  void run_tile(const Block<E>& block, int64_t t, float* c, int64_t ldc, bool accumulate) const {
    const int64_t row = tile_begin(t), rows = tile_begin(t + 1) - row;
    if (hooks_.prepare) {
      const int64_t stride = up(block.depth, 32);
      const Scratch<E> made(static_cast<size_t>(rows * stride));
      hooks_.prepare(row, rows, block.k, std::min(block.depth, first_.depth - block.k), made.data(), stride);
      block.run(made.data(), stride, row, rows, c + row * ldc, ldc, accumulate);
    } else {
      block.run(first_.a + row * first_.stride + block.k, first_.stride, row, rows, c + row * ldc, ldc, accumulate);
    }
    if (hooks_.finish && block.k + block.depth >= first_.depth)
      hooks_.finish(c + row * ldc, ldc, row, rows, block.n, block.cols);
  }

  int64_t n_blocks() const { return (cols_ + size_.n - 1) / size_.n; }
  // Rows are dealt out evenly: a tile of one or two rows would wait for its own sums.
  int64_t tile_begin(int64_t t) const { return rows_ / tiles_ * t + std::min(t, rows_ % tiles_); }
  Block<E> block_at(int64_t n_block, int64_t k, E* packed) const {
    const int64_t n = n_block * size_.n, depth = std::min(size_.k, first_.depth - k);
    const int64_t second_depth = k + depth >= first_.depth ? second_depth_ : 0;  // it rides in the last piece
    return {&kernels_,    set_,  &first_, &second_, n, std::min(size_.n, cols_ - n), k, up(depth, kernels_.pair),
            second_depth, packed};
  }

  const Kernels<E>& kernels_;
  int64_t rows_, cols_;
  const Factor<E>& first_;
  const Factor<E>& second_;
  const Hooks<E>& hooks_;
  const TileSet<E>* set_ = nullptr;
  int64_t second_depth_ = 0, tiles_ = 0;
  bool few_ = false;
  Cut size_{};
  size_t packed_elements_ = 0;
};

}  // namespace

template <class E>
void multiply(const Kernels<E>& kernels, int64_t rows, int64_t cols, const Factor<E>& first, const Factor<E>& second,
              float* c, bool accumulate, const Hooks<E>& hooks) {
  if (rows > 0 && cols > 0) Product<E>(kernels, rows, cols, first, second, hooks).run(c, accumulate);
}

template void multiply(const Kernels<float>&, int64_t, int64_t, const Factor<float>&, const Factor<float>&, float*,
                       bool, const Hooks<float>&);
template void multiply(const Kernels<uint16_t>&, int64_t, int64_t, const Factor<uint16_t>&, const Factor<uint16_t>&,
                       float*, bool, const Hooks<uint16_t>&);

}  // namespace thimble::gemm
