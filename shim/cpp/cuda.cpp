// CUDA streams, events and copies through c10's device-neutral guard: no CUDA header, no call into the runtime of ours.
// So this compiles for CPUs too; there every function but the copy throws.

#include <memory>

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

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

} // extern "C"
