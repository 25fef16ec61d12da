// The process group of one generation over ProcessGroupGloo or ProcessGroupNCCL, and its collectives.

#include <algorithm>
#include <future>
#include <stdexcept>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "shim.hpp"

namespace {

c10::intrusive_ptr<c10d::Backend> make_gloo(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, std::chrono::milliseconds timeout,
    const std::string& hostname) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(hostname));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world, options);
}

} // namespace

void pf::Group::run(const Launch& launch) {
#ifdef USE_C10D_NCCL
  if (is_nccl) {
    run_nccl(*this, launch);
    return;
  }
#endif
  const auto began = std::chrono::steady_clock::now();
  auto done = std::make_shared<std::promise<void>>();
  auto future = track(launch());
  future->addCallback([done](c10::ivalue::Future& result) {
    if (result.hasError()) {
      done->set_exception(result.exception_ptr());
    } else {
      done->set_value();
    }
  });
  // Gloo's own timeout speaks first, because it can tell what it waited for.
  auto outcome = done->get_future();
  if (outcome.wait_for(timeout + std::chrono::milliseconds(500)) != std::future_status::ready) {
    throw std::runtime_error("timed out");
  }
  outcome.get();
  waited_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

c10::intrusive_ptr<c10::ivalue::Future> pf::Group::track(const c10::intrusive_ptr<c10d::Work>& work) {
  auto inner = work->getFuture();
  auto operation = std::make_shared<Operation>();
  operation->future = c10::make_intrusive<c10::ivalue::Future>(inner->elementType());
  {
    std::lock_guard<std::mutex> lock(mutex_);
    running_.erase(
        std::remove_if(running_.begin(), running_.end(), [](const auto& one) { return one->claimed.load(); }),
        running_.end());
    if (over_.has_value()) {
      operation->claimed = true;
      operation->future->setError(std::make_exception_ptr(std::runtime_error(*over_)));
      return operation->future;
    }
    running_.push_back(operation);
  }
  inner->addCallback([operation](c10::ivalue::Future& result) {
    if (operation->claimed.exchange(true)) {
      return;
    }
    if (result.hasError()) {
      operation->future->setError(result.exception_ptr());
    } else {
      operation->future->markCompleted(result.constValue());
    }
  });
  return operation->future;
}

void pf::Group::end(const std::string& why) {
  std::vector<std::shared_ptr<Operation>> running;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (over_.has_value()) {
      return;
    }
    over_ = why;
    running.swap(running_);
  }
  for (const auto& operation : running) {
    if (!operation->claimed.exchange(true)) {
      operation->future->setError(std::make_exception_ptr(std::runtime_error(why)));
    }
  }
}

void pf::Group::abort() {
  if (is_nccl) {
    backend->abort();
  }
}

bool pf::Group::has_ended() {
  std::lock_guard<std::mutex> lock(mutex_);
  return over_.has_value();
}

extern "C" {

void pf_free(char* message) {
  std::free(message);
}

struct pf_group_config {
  int rank;
  int world;
  int64_t timeout_ms;
  int nccl;
  int device;
  const char* hostname;
};

// Takes the store's callbacks over in every case: `drop` is called once, also on failure.
char* pf_group_new(const pf_store_calls* calls, const pf_group_config* config, pf::Group** out) {
  return pf::guarded([&] {
    pf::settle_environment();
    const auto timeout = std::chrono::milliseconds(config->timeout_ms);
    auto store = pf::make_store(*calls, timeout);
    auto group = std::make_unique<pf::Group>();
    group->timeout = timeout;
    group->is_nccl = config->nccl != 0;
    group->device = config->device;
    group->process_group = c10::make_intrusive<c10d::ProcessGroup>(store, config->rank, config->world);
    auto type = c10d::ProcessGroup::BackendType::GLOO;
    auto device = c10::DeviceType::CPU;
    if (group->is_nccl) {
#ifdef USE_C10D_NCCL
      type = c10d::ProcessGroup::BackendType::NCCL;
      device = c10::DeviceType::CUDA;
      group->backend = pf::make_nccl(store, config->rank, config->world, timeout, config->device);
#else
      throw std::runtime_error("built without the `nccl` feature");
#endif
    } else {
      group->backend = make_gloo(store, config->rank, config->world, timeout, config->hostname);
    }
    group->process_group->setBackend(device, type, group->backend);
    group->process_group->setDefaultBackend(type);
    *out = group.release();
  });
}

char* pf_group_free(pf::Group* group) {
  return pf::guarded([&] { delete group; });
}

// What joining leaves to do; `pf_group_end` reaches it. Gloo's ranks are connected when they have joined.
char* pf_group_connect(pf::Group* group) {
  return pf::guarded([&] {
#ifdef USE_C10D_NCCL
    if (group->is_nccl) {
      pf::connect_nccl(*group);
    }
#else
    (void)group;
#endif
  });
}

double pf_group_waited_s(const pf::Group* group) {
  return group->waited_s;
}

char* pf_group_abort(pf::Group* group) {
  return pf::guarded([&] { group->abort(); });
}

// Fails every operation, in flight or to come, with the words `why`.
char* pf_group_end(pf::Group* group, const char* why) {
  return pf::guarded([&] { group->end(why); });
}

char* pf_all_gather(pf::Group* group, at::Tensor* output, const at::Tensor* own) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    auto input = own->contiguous();
    group->run([&] { return group->backend->_allgather_base(*output, input); });
  });
}

// Flat tensors; numbers from and to each rank, in rank order.
char* pf_all_to_all(
    pf::Group* group, at::Tensor* output, const at::Tensor* own, const int64_t* from, const int64_t* to, size_t world) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    auto input = own->contiguous();
    std::vector<int64_t> received(from, from + world);
    std::vector<int64_t> sent(to, to + world);
    group->run([&] { return group->backend->alltoall_base(*output, input, received, sent); });
  });
}

char* pf_all_reduce_sum(pf::Group* group, at::Tensor* tensor) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    const bool in_place = tensor->is_contiguous();
    std::vector<at::Tensor> list{in_place ? tensor->detach() : tensor->contiguous()};
    group->run([&] { return group->backend->allreduce(list); });
    if (!in_place) {
      tensor->copy_(list[0]);
    }
  });
}

char* pf_reduce_scatter_sum(pf::Group* group, at::Tensor* output, const at::Tensor* input) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    if (group->is_nccl) {
      auto whole = input->contiguous();
      group->run([&] { return group->backend->_reduce_scatter_base(*output, whole); });
      return;
    }
    // ProcessGroupGloo does the same inside, with work that has no future to track.
    std::vector<at::Tensor> whole{input->clone(at::MemoryFormat::Contiguous)};
    group->run([&] { return group->backend->allreduce(whole); });
    const auto rank = group->process_group->getRank();
    output->copy_(whole[0].narrow(0, rank * output->numel(), output->numel()));
  });
}

char* pf_broadcast(pf::Group* group, at::Tensor* tensor, int source) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    const bool in_place = tensor->is_contiguous();
    std::vector<at::Tensor> list{in_place ? tensor->detach() : tensor->contiguous()};
    c10d::BroadcastOptions options;
    options.rootRank = source;
    group->run([&] { return group->backend->broadcast(list, options); });
    if (!in_place) {
      tensor->copy_(list[0]);
    }
  });
}

char* pf_barrier(pf::Group* group) {
  return pf::guarded([&] {
    c10d::BarrierOptions options;
    options.timeout = group->timeout;
    group->run([&] { return group->backend->barrier(options); });
  });
}

} // extern "C"
