// Tensor-list kernels, autocast, copies: what tch does not reach. No communication.

#include <ATen/autocast_mode.h>

#include "shim.hpp"

extern "C" {

struct pf_adamw_step {
  int64_t step;
  double lr;
  double beta1;
  double beta2;
  double weight_decay;
  double eps;
};

char* pf_fused_adamw(
    at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* exp_avgs, at::Tensor* const* exp_avg_sqs,
    size_t count, const pf_adamw_step* step) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    auto weights = pf::list_of(params, count);
    auto first = pf::list_of(exp_avgs, count);
    auto second = pf::list_of(exp_avg_sqs, count);
    auto gradients = pf::list_of(grads, count);
    // The kernel reads flat memory; a gradient may be a transposed view.
    for (auto& gradient : gradients) {
      gradient = gradient.contiguous();
    }
    // The kernel only reads the steps, so one tensor serves all parameters.
    const auto options = at::TensorOptions().dtype(at::kFloat).device(weights[0].device());
    const std::vector<at::Tensor> steps(count, at::full({}, static_cast<double>(step->step), options));
    at::_fused_adamw_(
        weights, gradients, first, second, /*max_exp_avg_sqs=*/{}, steps, step->lr, step->beta1,
        step->beta2, step->weight_decay, step->eps, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{},
        /*found_inf=*/{});
  });
}

char* pf_global_norm(at::Tensor* const* tensors, size_t count, at::Tensor** out) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    const auto norms = at::_foreach_norm(pf::list_of(tensors, count), 2);
    *out = new at::Tensor(at::linalg_vector_norm(at::stack(norms).to(at::kFloat)));
  });
}

char* pf_scale_all(at::Tensor* const* tensors, size_t count, const at::Tensor* factor) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(pf::list_of(tensors, count), *factor);
  });
}

char* pf_copy_non_blocking(at::Tensor* target, const at::Tensor* source) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    target->copy_(*source, /*non_blocking=*/true);
  });
}

char* pf_pinned_copy(const at::Tensor* host, at::Tensor** out) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    *out = new at::Tensor(host->detach().contiguous().pin_memory());
  });
}

struct pf_autocast_state {
  int cuda;
  int enabled;
  int dtype;
};

pf_autocast_state pf_autocast_enter(int cuda) {
  const auto device = cuda != 0 ? at::kCUDA : at::kCPU;
  const pf_autocast_state before{
      cuda, at::autocast::is_autocast_enabled(device) ? 1 : 0,
      static_cast<int>(at::autocast::get_autocast_dtype(device))};
  at::autocast::set_autocast_enabled(device, true);
  at::autocast::set_autocast_dtype(device, at::kBFloat16);
  at::autocast::increment_nesting();
  return before;
}

void pf_autocast_leave(pf_autocast_state before) {
  const auto device = before.cuda != 0 ? at::kCUDA : at::kCPU;
  // The cache holds bf16 copies of weights; an optimizer step between two guards makes them stale.
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
  }
  at::autocast::set_autocast_enabled(device, before.enabled != 0);
  at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(before.dtype));
}

} // extern "C"
