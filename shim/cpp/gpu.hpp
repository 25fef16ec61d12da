// The kernels of kernels/gpu.cu on CUDA tensors, in builds with CUDA. Shapes and dtypes were checked by `fused.cpp`; memory is contiguous.
#pragma once

#include <ATen/ATen.h>

namespace pf::gpu {

// Whether `device` can run them: from compute capability 8.0 on.
bool can(int device);

struct Norm {
  const at::Tensor &weight, &bias, &mean, &rstd;
  double eps;
};

// y [.., width] of x [.., width], and statistics.
void norm(const Norm& norm, const at::Tensor& x, at::Tensor& y);
// dx of x and dy; the gradients of weight and bias, [2, width].
at::Tensor norm_back(const Norm& norm, const at::Tensor& x, const at::Tensor& dy, at::Tensor& dx);
// y [.., stride] of gated [.., 2 x stride].
void swiglu_norm(const Norm& norm, const at::Tensor& gated, at::Tensor& y);
at::Tensor swiglu_norm_back(const Norm& norm, const at::Tensor& gated, const at::Tensor& dy, at::Tensor& dgated);
// rows [B, T, parts x heads x width] to parts [B, T, heads, width], the first `turned` of them times `turn`; or back from them,
// times its conjugate.
void split(const at::Tensor& rows, const std::vector<at::Tensor>& parts, const at::Tensor& turn, int64_t turned);
void join(const at::Tensor& rows, const std::vector<at::Tensor>& parts, const at::Tensor& turn, int64_t turned);
void quick_gelu(const at::Tensor& x, at::Tensor& y);
void quick_gelu_back(const at::Tensor& x, const at::Tensor& dy, at::Tensor& dx);

} // namespace pf::gpu
