// The process group of one generation over ProcessGroupGloo or ProcessGroupNCCL, and its collectives.

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

void pf::Group::wait(const c10::intrusive_ptr<c10d::Work>& work) const {
#ifdef USE_C10D_NCCL
  if (is_nccl) {
    work->wait();
    wait_nccl(*this);
    return;
  }
#endif
  // Gloo's own timeout speaks first, because it can tell what it waited for.
  work->wait(timeout + std::chrono::milliseconds(500));
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
    const auto timeout = std::chrono::milliseconds(config->timeout_ms);
    auto store = pf::make_store(*calls, timeout);
    auto group = std::make_unique<pf::Group>();
    group->timeout = timeout;
    group->is_nccl = config->nccl != 0;
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

// NCCL only: Gloo has no abort, and its connections are shut down from Rust.
char* pf_group_abort(pf::Group* group) {
  return pf::guarded([&] {
    if (!group->ended.exchange(true) && group->is_nccl) {
      group->backend->abort();
    }
  });
}

char* pf_all_gather(pf::Group* group, at::Tensor* output, const at::Tensor* own) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    auto input = own->contiguous();
    group->wait(group->backend->_allgather_base(*output, input));
  });
}

char* pf_all_reduce_sum(pf::Group* group, at::Tensor* tensor) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    const bool in_place = tensor->is_contiguous();
    std::vector<at::Tensor> list{in_place ? tensor->detach() : tensor->contiguous()};
    group->wait(group->backend->allreduce(list));
    if (!in_place) {
      tensor->copy_(list[0]);
    }
  });
}

char* pf_reduce_scatter_sum(pf::Group* group, at::Tensor* output, const at::Tensor* input) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    auto whole = input->contiguous();
    group->wait(group->backend->_reduce_scatter_base(*output, whole));
  });
}

char* pf_broadcast(pf::Group* group, at::Tensor* tensor, int source) {
  return pf::guarded([&] {
    at::NoGradGuard no_grad;
    const bool in_place = tensor->is_contiguous();
    std::vector<at::Tensor> list{in_place ? tensor->detach() : tensor->contiguous()};
    c10d::BroadcastOptions options;
    options.rootRank = source;
    group->wait(group->backend->broadcast(list, options));
    if (!in_place) {
      tensor->copy_(list[0]);
    }
  });
}

char* pf_barrier(pf::Group* group) {
  return pf::guarded([&] {
    c10d::BarrierOptions options;
    options.timeout = group->timeout;
    group->wait(group->backend->barrier(options));
  });
}

} // extern "C"
