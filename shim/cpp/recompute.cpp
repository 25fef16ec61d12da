// A segment of a graph that is not kept: its forward ran without one, and backward runs it again with one
// (activation checkpointing: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
//
// Invariant: every tensor that the segment reads and that wants a gradient is an input of the one node that stands for it.
// So each of them receives one gradient, and what hangs behind (a cast, a reducer's hook) runs once, as with a kept graph.

#include <stdexcept>

#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "shim.hpp"

extern "C" {
struct pf_segment_calls {
  void* user;
  // Writes its output to `out`, or the bytes of why it failed to `why` and returns -1.
  int (*run)(void* user, const at::Tensor* const* inputs, size_t count, at::Tensor* out, void* why);
  void (*drop)(void* user);
};
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

class Segment final : public torch::CustomClassHolder {
 public:
  explicit Segment(const pf_segment_calls& calls) : calls_(calls) {}

  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  ~Segment() override {
    calls_.drop(calls_.user);
  }

  at::Tensor run(const variable_list& inputs) const {
    std::vector<const at::Tensor*> list;
    for (const auto& input : inputs) {
      list.push_back(&input);
    }
    at::Tensor out;
    std::vector<uint8_t> why;
    if (calls_.run(calls_.user, list.data(), list.size(), &out, &why) < 0) {
      throw std::runtime_error("a segment could not be run again: " + std::string(why.begin(), why.end()));
    }
    return out;
  }

 private:
  pf_segment_calls calls_;
};

using SegmentPtr = c10::intrusive_ptr<Segment>;

struct Recompute : Function<Recompute> {
  // A vector would hide its tensors: the node finds its inputs in arguments of the type TensorList only.
  static at::Tensor forward(AutogradContext* context, at::TensorList inputs, const at::Tensor& output, SegmentPtr segment) {
    context->save_for_backward(inputs.vec());
    context->saved_data["segment"] = c10::IValue::make_capsule(std::move(segment));
    return output.detach();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto segment = c10::static_intrusive_pointer_cast<Segment>(context->saved_data["segment"].toCapsule());
    variable_list inputs, wanted;
    at::Tensor output;
    {
      const at::AutoGradMode with_grad(true);
      for (const auto& input : saved) {
        inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
        if (input.requires_grad()) {
          wanted.push_back(inputs.back());
        }
      }
      output = segment->run(inputs);
    }
    auto found = torch::autograd::grad({output}, wanted, {grads[0]}, false, false, true);
    variable_list all(saved.size() + 2);
    auto next = found.begin();
    for (size_t i = 0; i < saved.size(); ++i) {
      if (saved[i].requires_grad()) {
        all[i] = std::move(*next++);
      }
    }
    return all;
  }
};

} // namespace

extern "C" {

// `output`, which `calls.run` made of `inputs`, with a node that makes it anew in backward. Takes `calls.user` over.
char* pf_recompute(
    const at::Tensor* const* inputs, size_t count, const at::Tensor* output, pf_segment_calls calls, at::Tensor** out) {
  return pf::guarded([&] {
    auto segment = c10::make_intrusive<Segment>(calls);
    variable_list list;
    for (size_t i = 0; i < count; ++i) {
      list.push_back(*inputs[i]);
    }
    *out = new at::Tensor(Recompute::apply(at::TensorList(list), *output, std::move(segment)));
  });
}

void pf_tensor_assign(at::Tensor* target, const at::Tensor* value) {
  *target = *value;
}

} // extern "C"
