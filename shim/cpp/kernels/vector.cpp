// See kernels.hpp. Compiled for each instruction set, PF_TABLE naming the result.

#include <cmath>
#include <type_traits>
#include <vector>

#include <ATen/cpu/vec/vec.h>

#include "kernels.hpp"

namespace {

using pf::kernels::Heads;
using pf::kernels::In;
using pf::kernels::Norm;
using pf::kernels::NormSums;
using pf::kernels::Out;
using bf16 = c10::BFloat16;
using V = at::vec::Vectorized<float>;

// As many numbers as a vector of bf16 holds, as fp32.
struct Lanes {
  V a, b;

  Lanes operator+(const Lanes& o) const { return {a + o.a, b + o.b}; }
  Lanes operator-(const Lanes& o) const { return {a - o.a, b - o.b}; }
  Lanes operator*(const Lanes& o) const { return {a * o.a, b * o.b}; }

  float sum() const {
    float each[V::size()];
    (a + b).store(each);
    for (int64_t width = V::size() / 2; width > 0; width /= 2) {
      for (int64_t i = 0; i < width; ++i) {
        each[i] += each[i + width];
      }
    }
    return each[0];
  }
};

constexpr int64_t kHalf = V::size();
constexpr int64_t kLanes = 2 * kHalf;

Lanes all(float x) {
  return {V(x), V(x)};
}

// To 20 units in the last place: 1.2e-6.
Lanes sigmoid(const Lanes& x) {
  const V one(1.f);
  return {one / (one + x.a.neg().exp_u20()), one / (one + x.b.neg().exp_u20())};
}

// The first `count` numbers; the others are zero.
Lanes load(const float* at, int64_t count) {
  if (count >= kLanes) {
    return {V::loadu(at), V::loadu(at + kHalf)};
  }
  return {V::loadu(at, std::min(count, kHalf)), count > kHalf ? V::loadu(at + kHalf, count - kHalf) : V(0.f)};
}

Lanes load(const bf16* at, int64_t count) {
  using B = at::vec::Vectorized<bf16>;
  const auto [a, b] = at::vec::convert_bfloat16_float(count >= kLanes ? B::loadu(at) : B::loadu(at, count));
  return {a, b};
}

void store(float* at, const Lanes& x, int64_t count) {
  x.a.store(at, std::min(count, kHalf));
  if (count > kHalf) {
    x.b.store(at + kHalf, std::min(count, kLanes) - kHalf);
  }
}

void store(bf16* at, const Lanes& x, int64_t count) {
  at::vec::convert_float_bfloat16(x.a, x.b).store(at, std::min(count, kLanes));
}

void add(float* at, const Lanes& x, int64_t count) {
  store(at, load(at, count) + x, count);
}

// Calls body(place, numbers that are left from there); inlined twice, so that whole steps lose their tests for the end.
template <class Body>
__attribute__((always_inline)) inline void each(int64_t width, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    body(i, kLanes);
  }
  if (i < width) {
    body(i, width - i);
  }
}

// Calls `body` with typed pointers.
template <class Body>
void typed(In x, const Body& body) {
  x.bf16 ? body(static_cast<const bf16*>(x.at)) : body(static_cast<const float*>(x.at));
}

template <class Body>
void typed(Out x, const Body& body) {
  x.bf16 ? body(static_cast<bf16*>(x.at)) : body(static_cast<float*>(x.at));
}

// Of the same numbers as `x`.
template <class T>
T* like(const T*, Out y) {
  return static_cast<T*>(y.at);
}

template <class T>
const T* like(const T*, In y) {
  return static_cast<const T*>(y.at);
}

// Mean and reciprocal deviation of a row; two passes, so that no digits cancel.
template <class T>
void moments(const T* x, int64_t width, double eps, float* mean, float* rstd) {
  Lanes sum = all(0);
  each(width, [&](int64_t i, int64_t left) { sum = sum + load(x + i, left); });
  *mean = sum.sum() / static_cast<float>(width);
  Lanes squares = all(0);
  const int64_t whole = width / kLanes * kLanes;
  each(whole, [&](int64_t i, int64_t left) {
    const Lanes d = load(x + i, left) - all(*mean);
    squares = squares + d * d;
  });
  float rest = 0;
  for (int64_t i = whole; i < width; ++i) {
    const float d = static_cast<float>(x[i]) - *mean;
    rest += d * d;
  }
  *rstd = 1.f / std::sqrt((squares.sum() + rest) / static_cast<float>(width) + static_cast<float>(eps));
}

template <class T, class U>
void norm_row(const Norm& norm, const T* x, U* y, float mean, float rstd) {
  each(norm.width, [&](int64_t i, int64_t left) {
    const Lanes hat = (load(x + i, left) - all(mean)) * all(rstd);
    store(y + i, hat * load(norm.weight + i, left) + load(norm.bias + i, left), left);
  });
}

// dL/dx of a row from dL/dy, and this row's share of the sums.
template <class T, class G>
void norm_row_back(const Norm& norm, const T* x, const G* dy, T* dx, NormSums sums, float mean, float rstd) {
  Lanes pull = all(0), along = all(0);
  each(norm.width, [&](int64_t i, int64_t left) {
    // Behind the row's end dy is zero, so these lanes add nothing.
    const Lanes hat = (load(x + i, left) - all(mean)) * all(rstd);
    const Lanes g = load(dy + i, left);
    const Lanes weighted = g * load(norm.weight + i, left);
    pull = pull + weighted;
    along = along + weighted * hat;
    add(sums.weight + i, g * hat, left);
    add(sums.bias + i, g, left);
  });
  const float count = static_cast<float>(norm.width);
  const Lanes mean_pull = all(pull.sum() / count), mean_along = all(along.sum() / count);
  each(norm.width, [&](int64_t i, int64_t left) {
    const Lanes hat = (load(x + i, left) - all(mean)) * all(rstd);
    const Lanes weighted = load(dy + i, left) * load(norm.weight + i, left);
    store(dx + i, (weighted - mean_pull - hat * mean_along) * all(rstd), left);
  });
}

void norm(const Norm& norm, In x, Out y, int64_t first, int64_t end) {
  typed(x, [&](auto x) {
    typed(y, [&](auto y) {
      for (int64_t row = first; row < end; ++row) {
        const auto* from = x + row * norm.width;
        moments(from, norm.width, norm.eps, norm.mean + row, norm.rstd + row);
        norm_row(norm, from, y + row * norm.width, norm.mean[row], norm.rstd[row]);
      }
    });
  });
}

void norm_back(const Norm& norm, In x, In dy, Out dx, NormSums sums, int64_t first, int64_t end) {
  typed(x, [&](auto x) {
    auto* to = like(x, dx);
    typed(dy, [&](auto dy) {
      for (int64_t row = first; row < end; ++row) {
        const int64_t at = row * norm.width;
        norm_row_back(norm, x + at, dy + at, to + at, sums, norm.mean[row], norm.rstd[row]);
      }
    });
  });
}

// sigmoid(gate) and silu(gate) value of a row.
template <class T>
void gate(const T* gate, const T* value, float* opening, float* product, int64_t width) {
  each(width, [&](int64_t i, int64_t left) {
    const Lanes x = load(gate + i, left), s = sigmoid(x);
    store(opening + i, s, left);
    store(product + i, x * s * load(value + i, left), left);
  });
}

void swiglu_norm(const Norm& norm, int64_t stride, In gated, Out y, int64_t first, int64_t end) {
  std::vector<float> opening(norm.width), product(norm.width);
  typed(gated, [&](auto gated) {
    auto* to = like(gated, y) + first * stride;
    for (int64_t row = first; row < end; ++row, to += stride) {
      const auto* from = gated + 2 * row * stride;
      gate(from, from + stride, opening.data(), product.data(), norm.width);
      moments(product.data(), norm.width, norm.eps, norm.mean + row, norm.rstd + row);
      norm_row(norm, product.data(), to, norm.mean[row], norm.rstd[row]);
      std::fill(to + norm.width, to + stride, 0.f);
    }
  });
}

void swiglu_norm_back(
    const Norm& norm, int64_t stride, In gated, In dy, Out dgated, NormSums sums, int64_t first, int64_t end) {
  std::vector<float> opening(norm.width), product(norm.width), pull(norm.width);
  typed(gated, [&](auto gated) {
    for (int64_t row = first; row < end; ++row) {
      const auto *from = gated + 2 * row * stride, *value = from + stride;
      auto *dgate = like(gated, dgated) + 2 * row * stride, *dvalue = dgate + stride;
      gate(from, value, opening.data(), product.data(), norm.width);
      norm_row_back(norm, product.data(), like(gated, dy) + row * stride, pull.data(), sums, norm.mean[row], norm.rstd[row]);
      each(norm.width, [&](int64_t i, int64_t left) {
        const Lanes x = load(from + i, left), s = load(opening.data() + i, left), g = load(pull.data() + i, left);
        store(dgate + i, g * load(value + i, left) * s * (all(1) + x * (all(1) - s)), left);
        store(dvalue + i, g * x * s, left);
      });
      std::fill(dgate + norm.width, dgate + stride, 0.f);
      std::fill(dvalue + norm.width, dvalue + stride, 0.f);
    }
  });
}

// `x` times `turn`, complex numbers side by side.
void turn(float* x, const float* turn, int64_t width, bool backwards) {
  using C = at::vec::Vectorized<c10::complex<float>>;
  const auto* by = reinterpret_cast<const c10::complex<float>*>(turn);
  auto* at = reinterpret_cast<c10::complex<float>*>(x);
  const int64_t pairs = width / 2;
  for (int64_t i = 0; i < pairs; i += C::size()) {
    const int64_t count = std::min<int64_t>(C::size(), pairs - i);
    const C factor = C::loadu(by + i, count);
    (C::loadu(at + i, count) * (backwards ? factor.conj() : factor)).store(at + i, count);
  }
}

template <class T, class U>
void convert(const T* from, U* to, int64_t count) {
  each(count, [&](int64_t i, int64_t left) { store(to + i, load(from + i, left), left); });
}

// Calls body(part, place of the head in the joined row, place in the part's row) for every head of a row.
template <class Body>
void each_head(const Heads& heads, int64_t row, const Body& body) {
  for (int64_t part = 0; part < heads.parts; ++part) {
    for (int64_t head = 0; head < heads.heads; ++head) {
      const int64_t joined = ((row * heads.parts + part) * heads.heads + head) * heads.width;
      body(part, joined, (row * heads.heads + head) * heads.width);
    }
  }
}

void split(const Heads& heads, In rows, const Out* parts, int64_t first, int64_t end) {
  std::vector<float> one(heads.width);
  typed(rows, [&](auto from) {
    for (int64_t row = first; row < end; ++row) {
      each_head(heads, row, [&](int64_t part, int64_t joined, int64_t apart) {
        convert(from + joined, one.data(), heads.width);
        if (part < heads.turned) {
          turn(one.data(), heads.turn + row % heads.tokens * heads.width, heads.width, false);
        }
        typed(parts[part], [&](auto to) { convert(one.data(), to + apart, heads.width); });
      });
    }
  });
}

void join(const Heads& heads, const In* parts, Out rows, int64_t first, int64_t end) {
  std::vector<float> one(heads.width);
  typed(rows, [&](auto to) {
    for (int64_t row = first; row < end; ++row) {
      each_head(heads, row, [&](int64_t part, int64_t joined, int64_t apart) {
        typed(parts[part], [&](auto from) { convert(from + apart, one.data(), heads.width); });
        if (part < heads.turned) {
          turn(one.data(), heads.turn + row % heads.tokens * heads.width, heads.width, true);
        }
        convert(one.data(), to + joined, heads.width);
      });
    }
  });
}

constexpr float kQuick = 1.702f;

void quick_gelu(In x, Out y, int64_t first, int64_t end) {
  typed(x, [&](auto x) {
    auto* to = like(x, y);
    each(end - first, [&](int64_t i, int64_t left) {
      const Lanes v = load(x + first + i, left);
      store(to + first + i, v * sigmoid(v * all(kQuick)), left);
    });
  });
}

void quick_gelu_back(In x, In dy, Out dx, int64_t first, int64_t end) {
  typed(x, [&](auto x) {
    const auto* pull = like(x, dy);
    auto* to = like(x, dx);
    each(end - first, [&](int64_t i, int64_t left) {
      const Lanes v = load(x + first + i, left) * all(kQuick), s = sigmoid(v);
      store(to + first + i, load(pull + first + i, left) * s * (all(1) + v * (all(1) - s)), left);
    });
  });
}

} // namespace

namespace pf::kernels {

extern const Table PF_TABLE;
const Table PF_TABLE = {norm, norm_back, swiglu_norm, swiglu_norm_back, split, join, quick_gelu, quick_gelu_back};

} // namespace pf::kernels
