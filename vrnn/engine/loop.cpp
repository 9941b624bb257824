// The time loop of vrnn/engine/operations.py without Python in between: the same operations on the same slots.
// vrnn/engine/native.py compiles it, lays out the structs and calls the functions at the end.

#include "product.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <exception>
#include <string>
#include <vector>

namespace {

enum Kind : int64_t { GIVEN, PRODUCT, RELU, SAMPLE, LSTM, GRU };

// A slot: the element (t, b, n) is at t * step + b * row + n.
template <class S>
struct Slot {
  S *values, *grads;
  int64_t step, row, width;
  int64_t rows;  // of what is given: rows of as many sequences, that all particles share
  S* at(int64_t t, int64_t b) const { return values + t * step + b * row; }
  S* grad(int64_t t, int64_t b) const { return grads + t * step + b * row; }
};

template <class S>
struct Operation {
  int64_t kind;
  Slot<S> slots[3];
  const S* weight;  // of a product, (outputs, inputs) with these strides
  int64_t weight_row, weight_column;
};

// ---- Pointwise operations.

// Calls f(b, n, count) for all rows of a share and vectors of `count` columns from n on.
template <class S, class F>
void pointwise(const Share& share, int64_t width, F f) {
  const auto [first, last] = share.columns<S>(width);
  for (int64_t b = share.first_row; b < share.last_row; b++)
    for (int64_t n = first; n < last; n += Vec<S>::size())
      f(b, n, std::min<int64_t>(Vec<S>::size(), last - n));
}

template <class S>
Vec<S> sigmoid(Vec<S> x) {
  return Vec<S>(1) / (Vec<S>(1) + x.neg().exp());
}

template <class S>  // softplus(a) + 1e-4, as vrnn.layers.feedforward.positive
Vec<S> positive(Vec<S> a) {
  return at::vec::maximum(a, Vec<S>(0)) + a.abs().neg().exp().log1p() + Vec<S>(1e-4);
}

template <class S, class W>
void forward(const Operation<S>& op, const Packed<W>* weight, int64_t t, const Share& share) {
  using V = Vec<S>;
  const auto& [x, y, z] = op.slots;
  switch (op.kind) {
    case GIVEN: {
      const auto [first, last] = share.columns<S>(y.width);
      for (int64_t b = share.first_row; b < share.last_row; b++) {
        const S* from = x.at(t, b % x.rows);
        std::copy(from + first, from + last, y.at(t, b) + first);
      }
      return;
    }
    case PRODUCT:
      return multiply(*weight, x.at(t, 0), x.row, y.at(t, 0), y.row, share);
    case RELU:
      return pointwise<S>(share, x.width, [&](int64_t b, int64_t n, int64_t count) {
        S* at = x.at(t, b) + n;
        at::vec::maximum(V::loadu(at, count), V(0)).store(at, count);
      });
    case SAMPLE:
      return pointwise<S>(share, z.width, [&](int64_t b, int64_t n, int64_t count) {
        const S* out = x.at(t, b) + n;
        const V std = positive(V::loadu(out + z.width, count));
        const V noise = V::loadu(y.at(t, b) + n, count);
        at::vec::fmadd(std, noise, V::loadu(out, count)).store(z.at(t, b) + n, count);
      });
    case LSTM:
      return pointwise<S>(share, y.width, [&](int64_t b, int64_t n, int64_t count) {
        S* a[4];
        for (int k = 0; k < 4; k++) a[k] = x.at(t, b) + k * y.width + n;
        const V i = sigmoid(V::loadu(a[0], count)), f = sigmoid(V::loadu(a[1], count));
        const V g = V::loadu(a[2], count).tanh(), o = sigmoid(V::loadu(a[3], count));
        const V c = f * V::loadu(z.at(t, b) + n, count) + i * g;
        i.store(a[0], count), f.store(a[1], count), g.store(a[2], count), o.store(a[3], count);
        c.store(z.at(t + 1, b) + n, count);
        (o * c.tanh()).store(y.at(t + 1, b) + n, count);
      });
    case GRU:
      return pointwise<S>(share, y.width, [&](int64_t b, int64_t j, int64_t count) {
        S* a[4];
        for (int k = 0; k < 4; k++) a[k] = x.at(t, b) + k * y.width + j;
        const V r = sigmoid(V::loadu(a[1], count)), u = sigmoid(V::loadu(a[2], count));
        const V n = (V::loadu(a[0], count) + r * V::loadu(a[3], count)).tanh();
        const V h = V::loadu(y.at(t, b) + j, count);
        n.store(a[0], count), r.store(a[1], count), u.store(a[2], count);
        (n + u * (h - n)).store(y.at(t + 1, b) + j, count);
      });
  }
}

template <class S, class W>
void backward(const Operation<S>& op, const Packed<W>* weight, int64_t t, const Share& share) {
  using V = Vec<S>;
  const auto& [x, y, z] = op.slots;
  const V one(1);
  switch (op.kind) {
    case PRODUCT:
      return multiply(*weight, y.grad(t, 0), y.row, x.grad(t, 0), x.row, share);
    case RELU:
      return pointwise<S>(share, x.width, [&](int64_t b, int64_t n, int64_t count) {
        S* dx = x.grad(t, b) + n;
        const V on = V::loadu(x.at(t, b) + n, count) > V(0);
        V::blendv(V(0), V::loadu(dx, count), on).store(dx, count);
      });
    case SAMPLE:
      return pointwise<S>(share, z.width, [&](int64_t b, int64_t n, int64_t count) {
        S *dmean = x.grad(t, b) + n, *da = dmean + z.width;
        const V dz = V::loadu(z.grad(t, b) + n, count), noise = V::loadu(y.at(t, b) + n, count);
        const V slope = sigmoid(V::loadu(x.at(t, b) + z.width + n, count));
        (V::loadu(dmean, count) + dz).store(dmean, count);
        (V::loadu(da, count) + dz * noise * slope).store(da, count);
      });
    case LSTM:
      return pointwise<S>(share, y.width, [&](int64_t b, int64_t n, int64_t count) {
        V a[4];
        S* da[4];
        for (int k = 0; k < 4; k++) {
          a[k] = V::loadu(x.at(t, b) + k * y.width + n, count);
          da[k] = x.grad(t, b) + k * y.width + n;
        }
        const auto& [i, f, g, o] = a;
        const V before = V::loadu(z.at(t, b) + n, count);
        const V tanh_c = V::loadu(z.at(t + 1, b) + n, count).tanh();
        const V dh = V::loadu(y.grad(t + 1, b) + n, count);
        const V dc = V::loadu(z.grad(t + 1, b) + n, count) + dh * o * (one - tanh_c * tanh_c);
        (dc * g * i * (one - i)).store(da[0], count);
        (dc * before * f * (one - f)).store(da[1], count);
        (dc * i * (one - g * g)).store(da[2], count);
        (dh * tanh_c * o * (one - o)).store(da[3], count);
        S* dbefore = z.grad(t, b) + n;
        (V::loadu(dbefore, count) + dc * f).store(dbefore, count);
      });
    case GRU:
      return pointwise<S>(share, y.width, [&](int64_t b, int64_t j, int64_t count) {
        V a[4];
        S* da[4];
        for (int k = 0; k < 4; k++) {
          a[k] = V::loadu(x.at(t, b) + k * y.width + j, count);
          da[k] = x.grad(t, b) + k * y.width + j;
        }
        const auto& [n, r, u, uh] = a;
        S* dbefore = y.grad(t, b) + j;
        const V before = V::loadu(y.at(t, b) + j, count);
        const V dh = V::loadu(y.grad(t + 1, b) + j, count);
        const V dn = dh * (one - u) * (one - n * n);
        dn.store(da[0], count);
        (dn * uh * r * (one - r)).store(da[1], count);
        (dh * (before - n) * u * (one - u)).store(da[2], count);
        (dn * r).store(da[3], count);
        (V::loadu(dbefore, count) + dh * u).store(dbefore, count);
      });
  }
}

// ---- The loop.

// The threads share the rows, and never wait for each other, unless the weights are so many that
// each of them had better read only its part of them.
constexpr int64_t SHARED_BYTES = 4 << 20;
// Multiply-adds, some 50 microseconds: with less to do than this, a thread is not worth waking.
constexpr int64_t WORTHWHILE = 1 << 20;

// Of the exception that is being handled. The text in oneDNN's own may be gone by now.
std::string what_happened() {
  try {
    throw;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::bad_alloc&) {
    return "memory is full";
  } catch (...) {
    return "oneDNN refuses a product";
  }
}

template <class S, class W>
struct Program {
  const std::vector<Operation<S>> ops;
  const int64_t rows;
  const bool back;
  std::vector<std::unique_ptr<Packed<W>>> packed;
  int64_t weights = 0;
  bool filled = false;
  std::string failure;

  Program(const Operation<S>* first, int64_t count, int64_t rows, bool back)
      : ops(first, first + count), rows(rows), back(back), packed(count) {
    for (int64_t k = 0; k < count; k++)
      if (ops[k].kind == PRODUCT) {
        const auto& [x, y, _] = ops[k].slots;
        packed[k] = std::make_unique<Packed<W>>(back ? x.width : y.width,
                                                back ? y.width : x.width, rows);
        weights += x.width * y.width;
      }
  }

  // With the weights as they are at the first call. Returns what went wrong, or null.
  const char* run(int64_t steps, int64_t threads) {
    const bool by_columns = weights * int64_t(sizeof(W)) > SHARED_BYTES;
    threads = std::min(threads, steps * rows * weights / WORTHWHILE);
    if (!by_columns) threads = std::min(threads, rows / ROWS);
    Meeting meeting;
    failure.clear();
#pragma omp parallel num_threads(std::max<int64_t>(threads, 1))
    {
      int64_t thread = 0, team = 1;
#ifdef _OPENMP
      thread = omp_get_thread_num(), team = omp_get_num_threads();
#endif
      try {  // No exception may leave a thread.
        const Tiles<W> tiles;
        share(steps, by_columns, thread, team, meeting);
      } catch (const Left&) {
      } catch (...) {
#pragma omp critical
        failure = what_happened();
        meeting.leave();
      }
    }
    filled = filled || failure.empty();
    return failure.empty() ? nullptr : failure.c_str();
  }

  // What one thread of a team does.
  void share(int64_t steps, bool by_columns, int64_t thread, int64_t team, Meeting& meeting) {
    const int64_t count = ops.size();
    if (!filled) {
      for (int64_t k = 0; k < count; k++)
        if (packed[k]) {
          const auto& op = ops[k];
          for (int64_t p = thread; p < packed[k]->panels(); p += team)
            packed[k]->fill(p, op.weight, back ? op.weight_column : op.weight_row,
                            back ? op.weight_row : op.weight_column);
        }
      meeting.wait(team);
    }
    const Share share =
        by_columns ? Share{0, rows, thread, team, &meeting}
                   : Share{rows * thread / team, rows * (thread + 1) / team, 0, 1, &meeting};
    for (int64_t step = 0; step < steps; step++)
      for (int64_t j = 0; j < count; j++) {
        const int64_t k = back ? count - 1 - j : j;
        if (back)
          backward(ops[k], packed[k].get(), steps - 1 - step, share);
        else
          forward(ops[k], packed[k].get(), step, share);
        if (by_columns) meeting.wait(team);
      }
  }
};

// Runs every operation, forwards and backwards: where the processor lacks an instruction that one
// of them is compiled to, this ends the process. Returns as `run`.
template <class S, class W>
const char* try_all() {
  constexpr int64_t n = Vec<S>::size() + 1, steps = 2, rows = ROWS + 1;
  std::vector<std::vector<S>> memory;
  const auto slot = [&](int64_t width) {
    for (int k = 0; k < 2; k++) memory.emplace_back((steps + 1) * rows * width);
    S *values = memory[memory.size() - 2].data(), *grads = memory.back().data();
    return Slot<S>{values, grads, rows * width, width, width, rows};
  };
  const std::vector<S> weight(4 * n * n, S(1));
  const Slot<S> x = slot(n), y = slot(n), a = slot(4 * n), h = slot(n);
  const std::vector<Operation<S>> ops = {
      {GIVEN, {x, y}},
      {PRODUCT, {y, a}, weight.data(), n, 1},
      {RELU, {y}},
      {SAMPLE, {slot(2 * n), slot(n), slot(n)}},
      {LSTM, {a, h, slot(n)}},
      {GRU, {slot(4 * n), slot(n)}},
  };
  static std::string failure;
  failure.clear();
  try {
    for (bool back : {false, true})
      if (const char* told = Program<S, W>(ops.data(), ops.size(), rows, back).run(steps, 1)) {
        failure = told;
        break;
      }
  } catch (...) {
    failure = what_happened();
  }
  return failure.empty() ? nullptr : failure.c_str();
}

}  // namespace

#define FUNCTIONS(name, S, W)                                                                     \
  extern "C" void* program_##name(const Operation<S>* ops, int64_t count, int64_t rows, bool back) { \
    try {                                                                                         \
      return new Program<S, W>(ops, count, rows, back);                                           \
    } catch (const std::bad_alloc&) {                                                             \
      return nullptr;                                                                             \
    }                                                                                             \
  }                                                                                               \
  extern "C" const char* run_##name(void* program, int64_t steps, int64_t threads) {              \
    return static_cast<Program<S, W>*>(program)->run(steps, threads);                             \
  }                                                                                               \
  extern "C" const char* try_##name() { return try_all<S, W>(); }                                 \
  extern "C" void free_##name(void* program) { delete static_cast<Program<S, W>*>(program); }

FUNCTIONS(float, float, float)
FUNCTIONS(double, double, double)
FUNCTIONS(mixed, float, BFloat16)
