// The kernels of kernels.hpp for GPUs from compute capability 8.0 on. Compiled when a process first needs them (gpu.cpp), for
// the GPU that it has, so nothing here may include a header.
//
// A block of threads takes a row at a time; sums within a row are fp32 in an order that depends on the row's width alone.
// Sums over rows go by runs of rows whose borders depend on their number alone: the same bits each time.

typedef unsigned short bf16;

constexpr int kThreads = 128;
constexpr int kVector = 4;

__device__ __forceinline__ float wide(float x) {
  return x;
}

__device__ __forceinline__ float wide(bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x) << 16);
}

__device__ __forceinline__ void narrow(float x, float& to) {
  to = x;
}

__device__ __forceinline__ void narrow(float x, bf16& to) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to) : "f"(x));
}

// Numbers that one thread reads or writes at once.
template <class T>
struct alignas(sizeof(T) * kVector) Pack {
  T at[kVector];
};

// `kVector` numbers from `x + i`; zeros where `i` is not below `end`. `whole`: rows begin at a multiple of a pack.
template <class T>
__device__ __forceinline__ void load(const T* x, int i, int end, bool whole, float* to) {
  if (whole && i + kVector <= end) {
    const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(x + i);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      to[k] = wide(pack.at[k]);
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    to[k] = i + k < end ? wide(x[i + k]) : 0.f;
  }
}

template <class T>
__device__ __forceinline__ void store(T* x, int i, int end, bool whole, const float* from) {
  if (whole && i + kVector <= end) {
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      narrow(from[k], pack.at[k]);
    }
    *reinterpret_cast<Pack<T>*>(x + i) = pack;
    return;
  }
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    if (i + k < end) {
      narrow(from[k], x[i + k]);
    }
  }
}

// The block's sums of `a` and `b`, known to all of its threads.
__device__ __forceinline__ void add_up(float& a, float& b) {
  __shared__ float sums[2][kThreads / 32];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    a += __shfl_xor_sync(~0u, a, step);
    b += __shfl_xor_sync(~0u, b, step);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    sums[0][threadIdx.x / 32] = a;
    sums[1][threadIdx.x / 32] = b;
  }
  __syncthreads();
  a = b = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    a += sums[0][warp];
    b += sums[1][warp];
  }
}

__device__ __forceinline__ float sigmoid(float x) {
  return 1.f / (1.f + __expf(-x));
}

// What a norm normalizes: numbers as they are, or a gated product.
template <class T>
struct Plain {
  const T* x;
  int stride;

  __device__ void at(long long row, int i, int end, bool whole, float* to) const {
    load(x + row * stride, i, end, whole, to);
  }
};

template <class T>
struct Gated {
  const T* x;
  int stride;

  __device__ void at(long long row, int i, int end, bool whole, float* to) const {
    float gate[kVector], value[kVector];
    const T* own = x + row * 2 * stride;
    load(own, i, end, whole, gate);
    load(own + stride, i, end, whole, value);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      to[k] = gate[k] * sigmoid(gate[k]) * value[k];
    }
  }
};

// y [rows, stride], zeros behind `width`. One row a block.
template <class Source, class To>
__device__ void norm(
    Source source, const float* weight, const float* bias, float* mean, float* rstd, To* y, int width, int stride, float eps) {
  const long long row = blockIdx.x;
  const bool whole = stride % kVector == 0;
  const bool whole_norm = width % kVector == 0;
  float sum = 0, none = 0;
  for (int i = threadIdx.x * kVector; i < width; i += kThreads * kVector) {
    float x[kVector];
    source.at(row, i, width, whole, x);
    sum += (x[0] + x[1]) + (x[2] + x[3]);
  }
  add_up(sum, none);
  const float middle = sum / width;
  float squares = 0;
  for (int i = threadIdx.x * kVector; i < width; i += kThreads * kVector) {
    float x[kVector];
    source.at(row, i, width, whole, x);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const float off = i + k < width ? x[k] - middle : 0.f;
      squares += off * off;
    }
  }
  add_up(squares, none);
  const float scale = rsqrtf(squares / width + eps);
  if (threadIdx.x == 0) {
    mean[row] = middle;
    rstd[row] = scale;
  }
  for (int i = threadIdx.x * kVector; i < stride; i += kThreads * kVector) {
    float x[kVector], w[kVector], b[kVector];
    source.at(row, i, width, whole, x);
    load(weight, i, width, whole_norm, w);
    load(bias, i, width, whole_norm, b);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      x[k] = i + k < width ? (x[k] - middle) * scale * w[k] + b[k] : 0.f;
    }
    store(y + row * stride, i, stride, whole, x);
  }
}

// Gives `put` the gradient of what was normalized, and sums of weight and bias over `run` rows a block to
// `sums` [blocks, 2, width].
template <class Source, class From, class Put>
__device__ void norm_back(
    Source source, const float* weight, const float* mean, const float* rstd, const From* dy, float* sums, int width, int stride,
    long long rows, int run, Put put) {
  extern __shared__ float own[];
  const bool whole = stride % kVector == 0;
  const bool whole_norm = width % kVector == 0;
  // A number of `own` is one thread's alone: the same one that takes its column in every row.
  for (int i = threadIdx.x * kVector; i < width; i += kThreads * kVector) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      if (i + k < width) {
        own[i + k] = own[width + i + k] = 0;
      }
    }
  }
  const long long first = static_cast<long long>(blockIdx.x) * run, end = min(first + run, rows);
  for (long long row = first; row < end; ++row) {
    const float middle = mean[row], scale = rstd[row];
    float pulled = 0, along = 0;
    for (int i = threadIdx.x * kVector; i < width; i += kThreads * kVector) {
      float x[kVector], w[kVector], pull[kVector];
      source.at(row, i, width, whole, x);
      load(weight, i, width, whole_norm, w);
      load(dy + row * stride, i, width, whole, pull);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        if (i + k < width) {
          const float normed = (x[k] - middle) * scale;
          own[i + k] += pull[k] * normed;
          own[width + i + k] += pull[k];
          pulled += pull[k] * w[k];
          along += pull[k] * w[k] * normed;
        }
      }
    }
    add_up(pulled, along);
    pulled /= width;
    along /= width;
    for (int i = threadIdx.x * kVector; i < stride; i += kThreads * kVector) {
      float x[kVector], w[kVector], pull[kVector];
      source.at(row, i, width, whole, x);
      load(weight, i, width, whole_norm, w);
      load(dy + row * stride, i, width, whole, pull);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        x[k] = i + k < width ? scale * (pull[k] * w[k] - pulled - (x[k] - middle) * scale * along) : 0.f;
      }
      put(row, i, whole, x);
    }
  }
  for (int i = threadIdx.x * kVector; i < width; i += kThreads * kVector) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      if (i + k < width) {
        float* to = sums + static_cast<long long>(blockIdx.x) * 2 * width + i + k;
        to[0] = own[i + k];
        to[width] = own[width + i + k];
      }
    }
  }
}

// Gate and value get their gradients from that of the product.
template <class T>
struct PutGated {
  const T* x;
  T* dx;
  int width, stride;

  __device__ void operator()(long long row, int i, bool whole, const float* pull) const {
    float gate[kVector], value[kVector];
    const T* own = x + row * 2 * stride;
    load(own, i, width, whole, gate);
    load(own + stride, i, width, whole, value);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const float s = sigmoid(gate[k]);
      const float silu = gate[k] * s;
      const float d_gate = pull[k] * value[k] * s * (1.f + gate[k] * (1.f - s));
      gate[k] = d_gate;
      value[k] = pull[k] * silu;
    }
    store(dx + row * 2 * stride, i, stride, whole, gate);
    store(dx + row * 2 * stride + stride, i, stride, whole, value);
  }
};

template <class T>
struct PutPlain {
  T* dx;
  int stride;

  __device__ void operator()(long long row, int i, bool whole, const float* pull) const {
    store(dx + row * stride, i, stride, whole, pull);
  }
};

// One pair of a head's numbers a thread: rows [tokens, parts, heads, width] to or from parts [tokens, heads, width].
template <class Rows, class Parts, bool kSplit>
__device__ void heads(
    Rows* rows, Parts* part0, Parts* part1, Parts* part2, const float* turn, long long pairs, int tokens, int parts, int joined,
    int width, int turned) {
  for (long long pair = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; pair < pairs;
       pair += static_cast<long long>(gridDim.x) * blockDim.x) {
    // `joined`: pairs of a part of a token.
    const long long row = pair / (static_cast<long long>(parts) * joined);
    const int within = static_cast<int>(pair - row * parts * joined);
    const int part = within / joined, place = within - part * joined;
    Parts* const apart = (part == 0 ? part0 : part == 1 ? part1 : part2) + (row * joined + place) * 2;
    Rows* const together = rows + pair * 2;
    float real, imaginary;
    if (kSplit) {
      real = wide(together[0]), imaginary = wide(together[1]);
    } else {
      real = wide(apart[0]), imaginary = wide(apart[1]);
    }
    if (part < turned) {
      const float* by = turn + (row % tokens * (width / 2) + place % (width / 2)) * 2;
      const float c = by[0], s = kSplit ? by[1] : -by[1];
      const float first = real * c - imaginary * s;
      imaginary = real * s + imaginary * c;
      real = first;
    }
    if (kSplit) {
      narrow(real, apart[0]), narrow(imaginary, apart[1]);
    } else {
      narrow(real, together[0]), narrow(imaginary, together[1]);
    }
  }
}

constexpr float kQuick = 1.702f;

template <class T>
__device__ void quick_gelu(const T* x, T* y, long long count) {
  const long long all = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < count; i += all) {
    const float v = wide(x[i]);
    narrow(v * sigmoid(kQuick * v), y[i]);
  }
}

template <class T>
__device__ void quick_gelu_back(const T* x, const T* dy, T* dx, long long count) {
  const long long all = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < count; i += all) {
    const float v = kQuick * wide(x[i]), s = sigmoid(v);
    narrow(wide(dy[i]) * s * (1.f + v * (1.f - s)), dx[i]);
  }
}

// Names by dtypes: of what is read (or of rows), then of what is written (or of parts).
#define PF_BOTH(NAME, A, B)                                                                                                     \
  extern "C" __global__ void norm_##NAME(                                                                                       \
      const A* x, const float* weight, const float* bias, float* mean, float* rstd, B* y, int width, float eps) {               \
    norm(Plain<A>{x, width}, weight, bias, mean, rstd, y, width, width, eps);                                                   \
  }                                                                                                                             \
  extern "C" __global__ void norm_back_##NAME(                                                                                  \
      const A* x, const float* weight, const float* mean, const float* rstd, const B* dy, A* dx, float* sums, int width,        \
      long long rows, int run) {                                                                                                \
    norm_back(Plain<A>{x, width}, weight, mean, rstd, dy, sums, width, width, rows, run, PutPlain<A>{dx, width});               \
  }                                                                                                                             \
  extern "C" __global__ void split_##NAME(                                                                                      \
      A* rows, B* part0, B* part1, B* part2, const float* turn, long long pairs, int tokens, int parts, int joined, int width,  \
      int turned) {                                                                                                             \
    heads<A, B, true>(rows, part0, part1, part2, turn, pairs, tokens, parts, joined, width, turned);                            \
  }                                                                                                                             \
  extern "C" __global__ void join_##NAME(                                                                                       \
      A* rows, B* part0, B* part1, B* part2, const float* turn, long long pairs, int tokens, int parts, int joined, int width,  \
      int turned) {                                                                                                             \
    heads<A, B, false>(rows, part0, part1, part2, turn, pairs, tokens, parts, joined, width, turned);                           \
  }

#define PF_ONE(NAME, T)                                                                                                         \
  extern "C" __global__ void swiglu_norm_##NAME(                                                                                \
      const T* x, const float* weight, const float* bias, float* mean, float* rstd, T* y, int width, int stride, float eps) {   \
    norm(Gated<T>{x, stride}, weight, bias, mean, rstd, y, width, stride, eps);                                                 \
  }                                                                                                                             \
  extern "C" __global__ void swiglu_norm_back_##NAME(                                                                           \
      const T* x, const float* weight, const float* mean, const float* rstd, const T* dy, T* dx, float* sums, int width,        \
      int stride, long long rows, int run) {                                                                                    \
    norm_back(Gated<T>{x, stride}, weight, mean, rstd, dy, sums, width, stride, rows, run, PutGated<T>{x, dx, width, stride});  \
  }                                                                                                                             \
  extern "C" __global__ void quick_gelu_##NAME(const T* x, T* y, long long count) {                                             \
    quick_gelu(x, y, count);                                                                                                    \
  }                                                                                                                             \
  extern "C" __global__ void quick_gelu_back_##NAME(const T* x, const T* dy, T* dx, long long count) {                          \
    quick_gelu_back(x, dy, dx, count);                                                                                          \
  }

PF_BOTH(float_float, float, float)
PF_BOTH(float_bf16, float, bf16)
PF_BOTH(bf16_float, bf16, float)
PF_BOTH(bf16_bf16, bf16, bf16)
PF_ONE(float, float)
PF_ONE(bf16, bf16)
