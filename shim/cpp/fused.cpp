// The kernels of kernels.hpp, and of gpu.hpp, on tensors, as autograd functions. Tensors are fp32 or bf16.
//
// Gradients of a norm's weight and bias are summed by blocks of rows whose borders depend on the number of rows alone: the
// same bits with any number of threads.

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gpu.hpp"
#include "kernels/kernels.hpp"
#include "shim.hpp"

namespace {

using pf::kernels::Heads;
using pf::kernels::In;
using pf::kernels::Norm;
using pf::kernels::Out;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Numbers that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 15;

const pf::kernels::Table& table() {
  static const auto& chosen = []() -> const pf::kernels::Table& {
#ifdef __x86_64__
    const auto capability = at::get_cpu_capability();
    if (capability == "AVX512") {
      return pf::kernels::table_avx512;
    }
    if (capability == "AVX2") {
      return pf::kernels::table_avx2;
    }
#endif
    return pf::kernels::table_default;
  }();
  return chosen;
}

// What a build without CUDA leaves out is not compiled in: nothing calls it.
template <class OnGpu, class OnCpu>
auto where(const at::Tensor& x, const OnGpu& on_gpu, const OnCpu& on_cpu) {
#ifdef USE_C10D_NCCL
  if (x.is_cuda()) {
    return on_gpu();
  }
#endif
  return on_cpu();
}

bool has_kernels(const at::Tensor& x) {
  return where(x, [&] { return pf::gpu::can(x.get_device()); }, [&] { return x.is_cpu(); });
}

at::Tensor checked(const at::Tensor& x, const char* what) {
  TORCH_CHECK(
      has_kernels(x) && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16), what,
      ": expected fp32 or bf16 on a CPU or a GPU with kernels, found ", x.scalar_type(), " on ", x.device());
  return x.contiguous();
}

In in(const at::Tensor& x) {
  return {x.const_data_ptr(), x.scalar_type() == at::kBFloat16};
}

Out out(at::Tensor& x) {
  return {x.mutable_data_ptr(), x.scalar_type() == at::kBFloat16};
}

template <class Body>
void by_rows(int64_t rows, int64_t width, const Body& body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width)), body);
}

// A norm's statistics, and what both directions need.
struct Rows {
  at::Tensor weight, bias, mean, rstd;
  Norm norm;
  int64_t count;

  Rows(at::Tensor weight_, at::Tensor bias_, int64_t count_, double eps)
      : Rows(weight_, bias_, at::empty({count_}, weight_.options()), at::empty({count_}, weight_.options()), eps) {}

  Rows(at::Tensor weight_, at::Tensor bias_, at::Tensor mean_, at::Tensor rstd_, double eps)
      : weight(std::move(weight_)), bias(std::move(bias_)), mean(std::move(mean_)), rstd(std::move(rstd_)) {
    TORCH_CHECK(
        weight.is_contiguous() && bias.is_contiguous() && weight.scalar_type() == at::kFloat &&
            bias.scalar_type() == at::kFloat && weight.sizes() == bias.sizes(),
        "a norm's weight and bias are fp32 of one size");
    norm = {weight.numel(), eps, weight.const_data_ptr<float>(), bias.const_data_ptr<float>(),
            mean.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>()};
    count = mean.numel();
  }

  pf::gpu::Norm on_gpu() const {
    return {weight, bias, mean, rstd, norm.eps};
  }

  // Calls body(sums, first, end) for blocks of rows; the sums of all blocks, [2, width].
  template <class Body>
  at::Tensor summed(const Body& body) const {
    const int64_t rows = std::max<int64_t>(32, (count + 255) / 256), blocks = (count + rows - 1) / rows;
    auto sums = at::zeros({blocks, 2, norm.width}, at::kFloat);
    auto* at = sums.mutable_data_ptr<float>();
    at::parallel_for(0, blocks, std::max<int64_t>(1, kGrain / (rows * norm.width)), [&](int64_t first, int64_t end) {
      for (int64_t block = first; block < end; ++block) {
        float* own = at + block * 2 * norm.width;
        body({own, own + norm.width}, block * rows, std::min(count, (block + 1) * rows));
      }
    });
    return sums.sum(0);
  }
};

struct FusedNorm : Function<FusedNorm> {
  static at::Tensor forward(
      AutogradContext* context, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps,
      bool bf16) {
    const auto x = checked(input, "norm");
    TORCH_CHECK(x.dim() > 0 && x.size(-1) == weight.numel(), "norm: the last dimension of ", x.sizes(), " is not that of ", weight.sizes());
    Rows rows(weight, bias, x.numel() / std::max<int64_t>(1, weight.numel()), eps);
    auto y = at::empty(x.sizes(), x.options().dtype(bf16 ? at::kBFloat16 : at::kFloat));
    where(x, [&] { pf::gpu::norm(rows.on_gpu(), x, y); }, [&] {
      by_rows(rows.count, rows.norm.width, [&](int64_t first, int64_t end) { table().norm(rows.norm, in(x), out(y), first, end); });
    });
    context->save_for_backward({x, weight, bias, rows.mean, rows.rstd});
    context->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], dy = grads[0].contiguous();
    const Rows rows(saved[1], saved[2], saved[3], saved[4], context->saved_data["eps"].toDouble());
    auto dx = at::empty_like(x);
    const auto sums = where(x, [&] { return pf::gpu::norm_back(rows.on_gpu(), x, dy, dx); }, [&] {
      return rows.summed([&](pf::kernels::NormSums sums, int64_t first, int64_t end) {
        table().norm_back(rows.norm, in(x), in(dy), out(dx), sums, first, end);
      });
    });
    return {dx, sums[0], sums[1], {}, {}};
  }
};

struct SwigluNorm : Function<SwigluNorm> {
  static at::Tensor forward(
      AutogradContext* context, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, double eps) {
    const auto gated = checked(input, "swiglu_norm");
    const int64_t stride = gated.dim() > 0 ? gated.size(-1) / 2 : 0;
    TORCH_CHECK(
        stride * 2 == gated.size(-1) && stride >= weight.numel() && stride > 0, "swiglu_norm: gates and values of ",
        weight.numel(), " numbers do not fit into ", gated.sizes());
    Rows rows(weight, bias, gated.numel() / (2 * stride), eps);
    auto sizes = gated.sizes().vec();
    sizes.back() = stride;
    auto y = at::empty(sizes, gated.options());
    where(gated, [&] { pf::gpu::swiglu_norm(rows.on_gpu(), gated, y); }, [&] {
      by_rows(rows.count, 2 * stride, [&](int64_t first, int64_t end) {
        table().swiglu_norm(rows.norm, stride, in(gated), out(y), first, end);
      });
    });
    context->save_for_backward({gated, weight, bias, rows.mean, rows.rstd});
    context->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto &gated = saved[0], dy = grads[0].contiguous();
    const Rows rows(saved[1], saved[2], saved[3], saved[4], context->saved_data["eps"].toDouble());
    auto dgated = at::empty_like(gated);
    const auto sums = where(gated, [&] { return pf::gpu::swiglu_norm_back(rows.on_gpu(), gated, dy, dgated); }, [&] {
      return rows.summed([&](pf::kernels::NormSums sums, int64_t first, int64_t end) {
        table().swiglu_norm_back(rows.norm, dy.size(-1), in(gated), in(dy), out(dgated), sums, first, end);
      });
    });
    return {dgated, sums[0], sums[1], {}};
  }
};

struct SplitHeads : Function<SplitHeads> {
  static variable_list forward(
      AutogradContext* context, const at::Tensor& input, const at::Tensor& turn, int64_t parts, int64_t width,
      int64_t turned, bool bf16) {
    const auto x = checked(input, "split_heads");
    TORCH_CHECK(
        x.dim() == 3 && parts > 0 && parts <= pf::kernels::kMostParts && width > 0 && x.size(2) % (parts * width) == 0,
        "split_heads: ", x.sizes(), " are not ", parts, " parts with heads of ", width);
    TORCH_CHECK(
        turned == 0 || (turned <= parts && turn.is_contiguous() && turn.scalar_type() == at::kComplexFloat &&
                        turn.numel() == x.size(1) * width / 2),
        "split_heads: factors ", turn.sizes(), " do not fit ", x.size(1), " tokens with heads of ", width);
    const int64_t heads = x.size(2) / (parts * width);
    variable_list split(parts);
    for (auto& part : split) {
      part = at::empty({x.size(0), x.size(1), heads, width}, x.options().dtype(bf16 ? at::kBFloat16 : at::kFloat));
    }
    where(x, [&] { pf::gpu::split(x, split, turn, turned); }, [&] {
      const auto layout = layout_of(turn, {x.size(1), parts, heads, width, turned, nullptr});
      Out to[pf::kernels::kMostParts];
      std::transform(split.begin(), split.end(), to, out);
      by_rows(x.size(0) * x.size(1), x.size(2), [&](int64_t first, int64_t end) {
        table().split(layout, in(x), to, first, end);
      });
    });
    context->save_for_backward({turn});
    context->saved_data["turned"] = turned;
    context->saved_data["dtype"] = static_cast<int64_t>(x.scalar_type());
    return split;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto turn = context->get_saved_variables()[0];
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    const auto parts = static_cast<int64_t>(grads.size());
    const auto sizes = grads[0].sizes();
    const int64_t turned = context->saved_data["turned"].toInt();
    auto dx = at::empty({sizes[0], sizes[1], parts * sizes[2] * sizes[3]}, grads[0].options().dtype(dtype));
    std::transform(grads.begin(), grads.end(), grads.begin(), [](const auto& grad) { return grad.contiguous(); });
    where(dx, [&] { pf::gpu::join(dx, grads, turn, turned); }, [&] {
      const auto layout = layout_of(turn, {sizes[1], parts, sizes[2], sizes[3], turned, nullptr});
      In from[pf::kernels::kMostParts];
      std::transform(grads.begin(), grads.end(), from, in);
      by_rows(sizes[0] * sizes[1], dx.size(2), [&](int64_t first, int64_t end) {
        table().join(layout, from, out(dx), first, end);
      });
    });
    return {dx, {}, {}, {}, {}, {}};
  }

  static Heads layout_of(const at::Tensor& turn, Heads heads) {
    if (heads.turned > 0) {
      heads.turn = static_cast<const float*>(turn.const_data_ptr());
    }
    return heads;
  }
};

struct QuickGelu : Function<QuickGelu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input) {
    const auto x = checked(input, "quick_gelu");
    auto y = at::empty_like(x);
    where(x, [&] { pf::gpu::quick_gelu(x, y); }, [&] {
      at::parallel_for(0, x.numel(), kGrain, [&](int64_t first, int64_t end) { table().quick_gelu(in(x), out(y), first, end); });
    });
    context->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    auto dx = at::empty_like(x);
    where(x, [&] { pf::gpu::quick_gelu_back(x, dy, dx); }, [&] {
      at::parallel_for(0, x.numel(), kGrain, [&](int64_t first, int64_t end) {
        table().quick_gelu_back(in(x), in(dy), out(dx), first, end);
      });
    });
    return {dx};
  }
};

} // namespace

extern "C" {

// y = LN(x) [.., width]; bf16 if asked, else fp32.
char* pf_norm(
    const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, double eps, int bf16, at::Tensor** out) {
  return pf::guarded([&] { *out = new at::Tensor(FusedNorm::apply(*x, *weight, *bias, eps, bf16 != 0)); });
}

// `gated` [.., 2 x stride] -> LN(silu(gate) value) [.., stride], zeros behind the norm's width.
char* pf_swiglu_norm(
    const at::Tensor* gated, const at::Tensor* weight, const at::Tensor* bias, double eps, at::Tensor** out) {
  return pf::guarded([&] { *out = new at::Tensor(SwigluNorm::apply(*gated, *weight, *bias, eps)); });
}

// `x` [B, T, parts x heads x width] -> `parts` tensors [B, T, heads, width], the first `turned` of them times `turn`.
char* pf_split_heads(
    const at::Tensor* x, const at::Tensor* turn, int64_t parts, int64_t width, int64_t turned, int bf16,
    at::Tensor** out) {
  return pf::guarded([&] {
    auto split = SplitHeads::apply(*x, turn != nullptr ? *turn : at::empty({0}, at::kComplexFloat), parts, width, turned, bf16 != 0);
    for (auto& part : split) {
      *out++ = new at::Tensor(std::move(part));
    }
  });
}

// x sigmoid(1.702 x).
char* pf_quick_gelu(const at::Tensor* x, at::Tensor** out) {
  return pf::guarded([&] { *out = new at::Tensor(QuickGelu::apply(*x)); });
}

// Whether a GPU has kernels for all of these.
void pf_has_kernels(int device, int* has) {
#ifdef USE_C10D_NCCL
  *has = pf::gpu::can(device) ? 1 : 0;
#else
  (void)device;
  *has = 0;
#endif
}

} // extern "C"
