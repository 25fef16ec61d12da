// CUDA streams and events over libtorch's own classes; no call into the CUDA runtime of ours.

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include "shim.hpp"

extern "C" {

// The three numbers of c10::Stream::pack3: a stream of the pool as plain data.
struct pf_stream {
  int64_t stream;
  int64_t device;
  int64_t kind;
};

static pf_stream packed(const c10::cuda::CUDAStream& stream) {
  const auto data = stream.pack3();
  return {data.stream_id, static_cast<int64_t>(data.device_index), static_cast<int64_t>(data.device_type)};
}

char* pf_stream_new(int device, pf_stream* out) {
  return pf::guarded([&] {
    *out = packed(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, static_cast<c10::DeviceIndex>(device)));
  });
}

char* pf_stream_swap(const pf_stream* stream, pf_stream* before) {
  return pf::guarded([&] {
    const auto device = static_cast<c10::DeviceIndex>(stream->device);
    *before = packed(c10::cuda::getCurrentCUDAStream(device));
    c10::cuda::setCurrentCUDAStream(
        c10::cuda::CUDAStream::unpack3(stream->stream, device, static_cast<c10::DeviceType>(stream->kind)));
  });
}

char* pf_event_record(int device, at::cuda::CUDAEvent** out) {
  return pf::guarded([&] {
    auto event = std::make_unique<at::cuda::CUDAEvent>();
    event->record(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)));
    *out = event.release();
  });
}

char* pf_event_block(at::cuda::CUDAEvent* event) {
  return pf::guarded([&] { event->block(c10::cuda::getCurrentCUDAStream(event->device_index())); });
}

char* pf_event_query(at::cuda::CUDAEvent* event, int* done) {
  return pf::guarded([&] { *done = event->query() ? 1 : 0; });
}

char* pf_event_synchronize(at::cuda::CUDAEvent* event) {
  return pf::guarded([&] { event->synchronize(); });
}

char* pf_event_free(at::cuda::CUDAEvent* event) {
  return pf::guarded([&] { delete event; });
}

} // extern "C"
