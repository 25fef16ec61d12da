// Elementwise chains of the towers, one pass each, on rows of fp32 or bf16 numbers; sums and roots are fp32.
//
// `vector.cpp` is compiled once for each instruction set, `pick` takes what the CPU has. Nothing here knows a tensor:
// memory is contiguous, and sizes were checked by `fused.cpp`.
#pragma once

#include <cstdint>

namespace pf::kernels {

// Numbers in memory: fp32, or bf16 where `bf16` says so.
struct In {
  const void* at;
  bool bf16;
};

struct Out {
  void* at;
  bool bf16;
};

// Layer norm of rows of `width`, with the statistics that its backward reads.
struct Norm {
  int64_t width;
  double eps;
  const float* weight;
  const float* bias;
  float* mean;
  float* rstd;
};

// Gradients of a norm's weight and bias, summed over the rows of one call.
struct NormSums {
  float* weight;
  float* bias;
};

// Rows [batch x tokens, parts x heads x width] on one side, `parts` tensors [batch x tokens, heads x width] on the other. The
// first `turned` parts are multiplied by `turn` [tokens, width / 2], complex; on the way back by its conjugate.
struct Heads {
  int64_t tokens;
  int64_t parts;
  int64_t heads;
  int64_t width;
  int64_t turned;
  const float* turn;
};

constexpr int64_t kMostParts = 3;

struct Table {
  void (*norm)(const Norm&, In x, Out y, int64_t first, int64_t end);
  void (*norm_back)(const Norm&, In x, In dy, Out dx, NormSums, int64_t first, int64_t end);
  // Rows of `gated` hold a gate and a value of `stride` numbers each, of which `norm.width` count:
  // y = LN(silu(gate) value), zeros behind.
  void (*swiglu_norm)(const Norm&, int64_t stride, In gated, Out y, int64_t first, int64_t end);
  void (*swiglu_norm_back)(const Norm&, int64_t stride, In gated, In dy, Out dgated, NormSums, int64_t first, int64_t end);
  void (*split)(const Heads&, In rows, const Out* parts, int64_t first, int64_t end);
  void (*join)(const Heads&, const In* parts, Out rows, int64_t first, int64_t end);
  // y = x sigmoid(1.702 x), numbers first..end.
  void (*quick_gelu)(In x, Out y, int64_t first, int64_t end);
  void (*quick_gelu_back)(In x, In dy, Out dx, int64_t first, int64_t end);
};

extern const Table table_default;
#ifdef __x86_64__
extern const Table table_avx2;
extern const Table table_avx512;
#endif

} // namespace pf::kernels
