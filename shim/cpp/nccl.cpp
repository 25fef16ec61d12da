// ProcessGroupNCCL for a process that outlives its groups.
//
// Invariant: a failed communicator never kills the process. c10d's watchdog may abort communicators and report, but the
// decision to leave is Rust's; hence the two settings below, which a user's own environment overrides.

#include <cstdlib>
#include <stdexcept>
#include <thread>

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "shim.hpp"

namespace {

void settle_environment() {
  // Runs once, before the first group: setenv beside another thread's getenv is a race.
  static const bool settled = [] {
    // 2 = clean up communicators only; the default tears the process down.
    ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", /*overwrite=*/0);
    // The heartbeat monitor would end a process whose watchdog is slow.
    ::setenv("TORCH_NCCL_ENABLE_MONITORING", "0", /*overwrite=*/0);
    return true;
  }();
  (void)settled;
}

} // namespace

c10::intrusive_ptr<c10d::Backend> pf::make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, std::chrono::milliseconds timeout, int device) {
  settle_environment();
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/false);
  options->timeout = timeout;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world, options);
  backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  return backend;
}

void pf::wait_nccl(pf::Group& group) {
  c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  c10::Event done(c10::DeviceType::CUDA);
  done.record(guard.getStream(guard.getDevice()));
  const auto deadline = std::chrono::steady_clock::now() + group.timeout;
  while (!done.query()) {
    if (group.has_ended()) {
      throw std::runtime_error("NCCL operation aborted");
    }
    const auto health = group.backend->getError();
    if (health == c10d::ErrorType::TIMEOUT) {
      throw std::runtime_error("NCCL operation timed out");
    }
    if (health != c10d::ErrorType::SUCCESS) {
      throw std::runtime_error("ncclRemoteError: a communicator failed");
    }
    if (std::chrono::steady_clock::now() > deadline) {
      throw std::runtime_error("NCCL operation timed out");
    }
    std::this_thread::yield();
  }
}
