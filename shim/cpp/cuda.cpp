// CUDA streams, events, copies and memory through c10's device-neutral interfaces, which compile for CPUs too: there every
// function but the copy throws. What only CUDA's own headers have stands at the end.

#include <memory>
#include <stdexcept>

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#ifdef USE_C10D_NCCL
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#endif

#include "shim.hpp"

namespace {

c10::impl::VirtualGuardImpl guard() {
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
}

c10::Device cuda(int64_t index) {
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}

} // namespace

extern "C" {

// The three numbers of c10::Stream::pack3: a stream of the pool as plain data.
struct pf_stream {
  int64_t stream;
  int64_t device;
  int64_t kind;
};

static pf_stream packed(const c10::Stream& stream) {
  const auto data = stream.pack3();
  return {data.stream_id, static_cast<int64_t>(data.device_index), static_cast<int64_t>(data.device_type)};
}

char* pf_set_device(int device) {
  return pf::guarded([&] { guard().setDevice(cuda(device)); });
}

// The most bytes that tensors held since the last call.
char* pf_take_peak_memory(int device, int64_t* out) {
  return pf::guarded([&] {
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    const auto index = static_cast<c10::DeviceIndex>(device);
    *out = allocator->getDeviceStats(index).allocated_bytes[0].peak;
    allocator->resetPeakStats(index);
  });
}

char* pf_stream_new(int device, pf_stream* out) {
  return pf::guarded([&] { *out = packed(guard().getStreamFromGlobalPool(cuda(device))); });
}

char* pf_stream_swap(const pf_stream* stream, pf_stream* before) {
  return pf::guarded([&] {
    const auto kind = static_cast<c10::DeviceType>(stream->kind);
    const auto index = static_cast<c10::DeviceIndex>(stream->device);
    *before = packed(guard().exchangeStream(c10::Stream::unpack3(stream->stream, index, kind)));
  });
}

char* pf_event_record(int device, c10::Event** out) {
  return pf::guarded([&] {
    auto event = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
    event->record(guard().getStream(cuda(device)));
    *out = event.release();
  });
}

char* pf_event_block(c10::Event* event) {
  return pf::guarded([&] { event->block(guard().getStream(event->device())); });
}

char* pf_event_query(c10::Event* event, int* done) {
  return pf::guarded([&] { *done = event->query() ? 1 : 0; });
}

char* pf_event_synchronize(c10::Event* event) {
  return pf::guarded([&] { event->synchronize(); });
}

char* pf_event_free(c10::Event* event) {
  return pf::guarded([&] { delete event; });
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

// Writes at most `len` characters.
char* pf_device_name(int device, char* out, size_t len) {
  return pf::guarded([&] {
#ifdef USE_C10D_NCCL
    cudaDeviceProp facts{};
    C10_CUDA_CHECK(cudaGetDeviceProperties(&facts, device));
    std::strncpy(out, facts.name, len);
#else
    (void)device, (void)out, (void)len;
    throw std::runtime_error("built without CUDA");
#endif
  });
}

// From now on every wait for a GPU is a warning on standard error.
char* pf_tell_waits() {
  return pf::guarded([] {
#ifdef USE_C10D_NCCL
    c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_WARN);
#else
    throw std::runtime_error("built without CUDA");
#endif
  });
}

} // extern "C"
