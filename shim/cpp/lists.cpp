// Kernels over lists of tensors, in one call where tch offers one call a tensor. No communication.

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
    size_t count, const pf_adamw_step* step, const at::Tensor* divisor, const at::Tensor* skip) {
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
        step->beta2, step->weight_decay, step->eps, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/*divisor,
        /*found_inf=*/*skip);
  });
}

// The 2-norm of each tensor, [count] fp32.
char* pf_norms(at::Tensor* const* tensors, size_t count, at::Tensor** out) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    *out = new at::Tensor(at::stack(at::_foreach_norm(pf::list_of(tensors, count), 2)).to(at::kFloat));
  });
}

char* pf_zero_all(at::Tensor* const* tensors, size_t count) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_zero_(pf::list_of(tensors, count));
  });
}

// Each parameter's gradient becomes the next piece of `flat`, as it stands there.
char* pf_gradients_in(const at::Tensor* flat, at::Tensor* const* params, size_t count) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    int64_t start = 0;
    for (size_t i = 0; i < count; ++i) {
      params[i]->mutable_grad() = flat->narrow(0, start, params[i]->numel()).view(params[i]->sizes());
      start += params[i]->numel();
    }
  });
}

char* pf_lerp_all(at::Tensor* const* targets, at::Tensor* const* sources, size_t count, double weight) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(pf::list_of(targets, count), pf::list_of(sources, count), weight);
  });
}

} // extern "C"
