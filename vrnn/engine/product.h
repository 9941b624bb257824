// Products of the loop in loop.cpp: y += W x.

#pragma once

#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using at::BFloat16;
namespace blas = at::native::cpublas;

template <class S>
using Vec = at::vec::Vectorized<S>;

// That another thread has left the team, so that waiting for it would never end.
struct Left {};

// Where the threads of a team wait for each other: awake for half a millisecond, which is longer
// than a product takes, and then asleep, so that one that is late may have the processor.
class Meeting {
  static constexpr int AWAKE = 10000;
  std::atomic<int> arrived{0}, round{0};
  std::atomic<bool> left{false};

  void end_round() {
    round.fetch_add(1);
    round.notify_all();
  }

 public:
  void wait(int64_t team) {
    const int now = round.load();
    if (arrived.fetch_add(1) + 1 == team) {
      arrived.store(0);
      end_round();
    }
    for (int tries = 0; round.load() == now && !left.load(); tries++)
      if (tries >= AWAKE)
        round.wait(now);
      else
#if defined(__x86_64__)
        _mm_pause();
#else
        std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
    if (left.load()) throw Left();
  }

  // Has all others, who wait or will wait, leave by an exception.
  void leave() {
    left.store(true);
    end_round();
  }
};

// What one of the threads computes of every step: some rows and of these a part of the columns.
struct Share {
  int64_t first_row, last_row, part, parts;
  Meeting* meeting;  // of all who share the rows, where they are parted by columns

  template <class S>  // Columns in whole vectors.
  std::pair<int64_t, int64_t> columns(int64_t width) const {
    constexpr int64_t n = Vec<S>::size();
    const int64_t vectors = (width + n - 1) / n;
    return {vectors * part / parts * n, std::min(vectors * (part + 1) / parts * n, width)};
  }
};

// A tile of y stays in registers: ROWS sequences by VECTORS vectors of outputs.

#ifdef CPU_CAPABILITY_AVX512
constexpr int ROWS = 8, VECTORS = 3;
#else
constexpr int ROWS = 4, VECTORS = 3;
#endif
constexpr int64_t DEPTH = 512;  // inputs at a time, so that their weights stay in the L2 cache
constexpr int64_t LINE = 64;    // bytes that a cache fetches at once

// The factors of a product are of type W: that of all else or, their sums in float, bfloat16.
template <class W>
constexpr bool ROUNDED = std::is_same_v<W, BFloat16>;
constexpr int64_t BLOCK = 32;  // inputs that oneDNN multiplies at once, in bfloat16

template <class W>
constexpr int64_t PANEL = ROUNDED<W> ? 64 : VECTORS * Vec<W>::size();

template <class W>
using Memory = std::unique_ptr<W, decltype(&std::free)>;

template <class W>
Memory<W> allocate(int64_t count) {
  const int64_t bytes = (count * sizeof(W) + 63) / 64 * 64;
  Memory<W> memory{static_cast<W*>(std::aligned_alloc(64, bytes)), &std::free};
  if (bytes > 0 && !memory) throw std::bad_alloc();
  return memory;
}

// Has oneDNN's tiles released when a thread has done with them. Otherwise other products, which
// configure and release them too, would leave oneDNN in the belief that they still are as it left
// them, and its next product would end the process.
template <class W>
struct Tiles {
  ~Tiles() {
    if (ROUNDED<W>) blas::brgemm_release();
  }
};

// A matrix as panels of PANEL outputs, each (depth, PANEL) in memory, or (depth / 2, PANEL, 2) in
// bfloat16. What the last panel and the inputs are filled up with is zero.
template <class W>
struct Packed {
  const int64_t outputs, inputs, depth = ROUNDED<W> ? (inputs + BLOCK - 1) / BLOCK * BLOCK : inputs;
  const Memory<W> data = allocate<W>(panels() * PANEL<W> * depth);
  const Memory<W> factors;  // of all rows, where they are rounded: x as (rows, depth)

  Packed(int64_t outputs, int64_t inputs, int64_t rows)
      : outputs(outputs), inputs(inputs), factors(allocate<W>(ROUNDED<W> ? rows * depth : 0)) {}

  int64_t panels() const { return (outputs + PANEL<W> - 1) / PANEL<W>; }
  W* panel(int64_t p) const { return data.get() + p * PANEL<W> * depth; }

  template <class S>
  void fill(int64_t p, const S* weight, int64_t row, int64_t column) {
    const int64_t first = p * PANEL<W>, count = std::min(PANEL<W>, outputs - first);
    W* to = panel(p);
    for (int64_t k = 0; k < depth; k++)
      for (int64_t n = 0; n < PANEL<W>; n++)
        to[ROUNDED<W> ? (k / 2 * PANEL<W> + n) * 2 + k % 2 : k * PANEL<W> + n] =
            n < count && k < inputs ? W(weight[(first + n) * row + k * column]) : W(0);
  }
};

// y += w x for some of the inputs. With each of them it has a line of `ahead` fetched.
template <class S, int rows>
void tile(const S* x, int64_t x_row, const S* w, int64_t depth, S* y, int64_t y_row,
          int64_t width, const S* ahead) {
  constexpr int64_t n = Vec<S>::size();
  Vec<S> sum[rows][VECTORS];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < VECTORS; v++) sum[r][v] = Vec<S>(0);
  for (int64_t k = 0; k < depth; k++, w += PANEL<S>, ahead += LINE / sizeof(S)) {
    __builtin_prefetch(ahead, 0, 2);
    Vec<S> weights[VECTORS];
    for (int v = 0; v < VECTORS; v++) weights[v] = Vec<S>::loadu(w + v * n);
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < VECTORS; v++)
        sum[r][v] = at::vec::fmadd(Vec<S>(x[r * x_row + k]), weights[v], sum[r][v]);
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < VECTORS; v++) {
      S* at = y + r * y_row + v * n;
      const int64_t count = std::min(width - v * n, n);
      if (count == n)
        (sum[r][v] + Vec<S>::loadu(at)).store(at);
      else if (count > 0)
        (sum[r][v] + Vec<S>::loadu(at, count)).store(at, count);
    }
}

template <class S, int rows, class... Args>
void tile_of(int64_t wanted, Args... args) {  // `tile` with rows = wanted
  if constexpr (rows > 0) {
    if (wanted == rows) return tile<S, rows>(args...);
    tile_of<S, rows - 1>(wanted, args...);
  }
}

// Shapes: x (B, inputs), y (B, outputs), at row 0.
template <class S>
void multiply(const Packed<S>& w, const S* x, int64_t x_row, S* y, int64_t y_row,
              const Share& share) {
  const int64_t last = w.panels() * (share.part + 1) / share.parts;
  for (int64_t p = w.panels() * share.part / share.parts; p < last; p++)
    for (int64_t k = 0; k < w.inputs; k += DEPTH) {
      const int64_t depth = std::min(DEPTH, w.inputs - k);
      const S* weights = w.panel(p) + k * PANEL<S>;
      const S* next = weights + depth * PANEL<S>;  // of which each tile has a part fetched
      for (int64_t b = share.first_row, part = 0; b < share.last_row; b += ROWS, part++)
        tile_of<S, ROWS>(std::min<int64_t>(ROWS, share.last_row - b), x + b * x_row + k, x_row,
                         weights, depth, y + b * y_row + p * PANEL<S>, y_row,
                         w.outputs - p * PANEL<S>,
                         next + part % VECTORS * depth * (LINE / sizeof(S)));
    }
}

// In bfloat16, by oneDNN. The threads that share rows round them together.
inline void multiply(const Packed<BFloat16>& w, const float* x, int64_t x_row, float* y,
                     int64_t y_row, const Share& share) {
  using V = Vec<float>;
  constexpr int64_t n = V::size(), panel = PANEL<BFloat16>;
  const auto [first, end, part, parts, meeting] = share;
  const int64_t blocks = w.depth / BLOCK, stop = blocks * (part + 1) / parts * BLOCK;
  const auto load = [&](const float* from, int64_t k) {
    return V::loadu(from + k, std::clamp(w.inputs - k, int64_t(0), n));
  };
  for (int64_t b = first; b < end; b++)
    for (int64_t k = blocks * part / parts * BLOCK; k < stop; k += 2 * n)
      at::vec::convert_float_bfloat16(load(x + b * x_row, k), load(x + b * x_row, k + n))
          .store(w.factors.get() + b * w.depth + k);
  if (parts > 1) meeting->wait(parts);
  for (int64_t p = w.panels() * part / parts; p < w.panels() * (part + 1) / parts; p++)
    blas::brgemm(end - first, std::min(panel, w.outputs - p * panel), w.depth, w.depth, panel,
                 y_row, true, w.factors.get() + first * w.depth, w.panel(p),
                 y + first * y_row + p * panel);
}

}  // namespace
