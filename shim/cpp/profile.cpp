// libtorch's own profiler (kineto): operations of this thread and of the backward that it starts, and kernels of GPUs.

#include <set>

#include <torch/csrc/autograd/profiler_kineto.h>

#include "shim.hpp"

namespace {

using torch::profiler::impl::ActivityType;

std::set<ActivityType> activities(bool cuda) {
  return cuda ? std::set<ActivityType>{ActivityType::CPU, ActivityType::CUDA} : std::set<ActivityType>{ActivityType::CPU};
}

} // namespace

extern "C" {

char* pf_profile_start(int cuda) {
  return pf::guarded([&] {
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities(cuda != 0));
    torch::autograd::profiler::enableProfiler(config, activities(cuda != 0));
  });
}

char* pf_profile_stop(const char* path) {
  return pf::guarded([&] { torch::autograd::profiler::disableProfiler()->save(path); });
}

} // extern "C"
