// ProcessGroupNCCL for a process that outlives its groups.
//
// Invariants: a failed communicator never kills the process: c10d's watchdog may abort communicators and report, but the
// decision to leave is Rust's (see settings.cpp). An abort reaches a group at any time, while its communicator is being
// made too: nobody waits under a lock that the abort needs. What an aborted operation left behind is nobody's result.

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>
#include <thread>

#include <ATen/cuda/CUDAEvent.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "shim.hpp"

namespace {

// Members of c10d's NCCLComm, which shows how far a communicator is only to those who wait for it under its lock. An
// explicit instantiation may name what is private, a derived class what is protected.
struct Raw {
  using Member = ncclComm_t c10d::NCCLComm::*;
  friend Member member(Raw);
};

template <class Tag, typename Tag::Member Of>
struct Shown {
  friend typename Tag::Member member(Tag) {
    return Of;
  }
};
template struct Shown<Raw, &c10d::NCCLComm::ncclComm_>;

struct Open : c10d::NCCLComm {
  static auto lock_of(c10d::NCCLComm& communicator) {
    return std::unique_lock(communicator.*&Open::mutex_);
  }

  static bool is_aborted(c10d::NCCLComm& communicator) {
    return communicator.*&Open::aborted_;
  }
};

// c10d's backend with a way to look at its communicator.
class OpenNccl final : public c10d::ProcessGroupNCCL {
 public:
  using c10d::ProcessGroupNCCL::ProcessGroupNCCL;

  // What NCCL itself says of the communicator now: ncclSuccess, ncclInProgress, or what befell it.
  ncclResult_t state() {
    std::shared_ptr<c10d::NCCLComm> communicator;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (devNCCLCommMap_.empty()) {
        return ncclInProgress;
      }
      communicator = devNCCLCommMap_.begin()->second;
    }
    const auto lock = Open::lock_of(*communicator);
    if (Open::is_aborted(*communicator)) {
      return ncclSystemError;
    }
    ncclResult_t state = ncclSuccess;
    const auto asked = async_error()((*communicator).*member(Raw{}), &state);
    return asked == ncclSuccess ? state : asked;
  }

 private:
  using AsyncError = ncclResult_t (*)(ncclComm_t, ncclResult_t*);

  // libtorch brings NCCL along; the wheel has no file that a linker would find it by.
  static AsyncError async_error() {
    static const auto found = reinterpret_cast<AsyncError>(::dlsym(RTLD_DEFAULT, "ncclCommGetAsyncError"));
    if (found == nullptr) {
      throw std::runtime_error("libtorch has loaded no NCCL that knows ncclCommGetAsyncError");
    }
    return found;
  }
};

OpenNccl& open(pf::Group& group) {
  return static_cast<OpenNccl&>(*group.backend);
}

// Throws what has befallen the group.
void look(pf::Group& group) {
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
}

[[noreturn]] void throw_state(ncclResult_t state) {
  throw std::runtime_error("ncclRemoteError: a communicator failed with NCCL's code " + std::to_string(state));
}

using Clock = std::chrono::steady_clock;

void look_at_time(Clock::time_point deadline) {
  if (Clock::now() > deadline) {
    throw std::runtime_error("NCCL operation timed out");
  }
}

c10::Stream current_stream(const pf::Group& group) {
  return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(group.device)).unwrap();
}

} // namespace

c10::intrusive_ptr<c10d::Backend> pf::make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, std::chrono::milliseconds timeout, int device) {
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/false);
  options->timeout = timeout;
  // NCCL's calls return at once, and can be aborted whatever they wait for. c10d waits for them in whole seconds.
  if (std::getenv("TORCH_NCCL_USE_COMM_NONBLOCKING") == nullptr) {
    options->config.blocking = 0;
  }
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(timeout).count();
  ::setenv("TORCH_NCCL_NONBLOCKING_TIMEOUT", std::to_string(seconds).c_str(), /*overwrite=*/0);
  auto backend = c10::make_intrusive<OpenNccl>(store, rank, world, options);
  backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  return backend;
}

void pf::connect_nccl(pf::Group& group) {
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(group.device));
  const c10::cuda::CUDAGuard on(device);
  const auto deadline = Clock::now() + group.timeout;
  group.backend->eagerConnectSingleDevice(device);
  for (auto state = open(group).state(); state != ncclSuccess; state = open(group).state()) {
    look(group);
    if (state != ncclInProgress) {
      throw_state(state);
    }
    look_at_time(deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // Ranks connect to each other in the first operation.
  std::vector<at::Tensor> one{at::ones({1}, at::TensorOptions().device(device))};
  group.run([&] { return group.backend->allreduce(one); });
}

void pf::run_nccl(pf::Group& group, const pf::Group::Launch& launch) {
  const c10::cuda::CUDAGuard on(static_cast<c10::DeviceIndex>(group.device));
  auto began = timed_event(group);
  const auto work = launch();
  work->wait();
  group.waited_s += wait_nccl(group, began);
}

c10::Event pf::timed_event(pf::Group& group) {
  c10::Event event(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT);
  event.record(current_stream(group));
  return event;
}

double pf::wait_nccl(pf::Group& group, const c10::Event& since) {
  const auto done = timed_event(group);
  const auto deadline = Clock::now() + group.timeout;
  while (!done.query()) {
    look(group);
    look_at_time(deadline);
    std::this_thread::yield();
  }
  // Kernels that were aborted end like those that are done, with some of their output written.
  look(group);
  const auto state = open(group).state();
  if (state != ncclSuccess && state != ncclInProgress) {
    throw_state(state);
  }
  return since.elapsedTime(done) / 1e3;
}
