// What the pieces of the shim share: the guard at the border, the group.
//
// Invariant: every function that Rust calls runs inside `pf::guarded`, which turns any exception into a malloc'd
// message (null = success). Tensors cross as `at::Tensor*`, the pointer that tch itself holds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

extern "C" {

struct pf_slice {
  const uint8_t* data;
  size_t len;
};

// Callbacks into Rust. All return -1 for failure (Rust remembers why), otherwise 0 or a truth value.
struct pf_store_calls {
  void* user;
  int (*set)(void* user, pf_slice key, pf_slice value);
  int (*get)(void* user, pf_slice key, int64_t timeout_ms, void* bytes);
  int (*add)(void* user, pf_slice key, int64_t amount, int64_t* sum);
  int (*check)(void* user, const pf_slice* keys, size_t count);
  int (*wait)(void* user, const pf_slice* keys, size_t count, int64_t timeout_ms);
  int (*compare_set)(void* user, pf_slice key, pf_slice expected, pf_slice desired, void* bytes);
  int (*remove)(void* user, pf_slice key);
  void (*drop)(void* user);
};
}

namespace pf {

inline char* copy_message(const char* text) noexcept {
  char* copy = ::strdup(text != nullptr && *text != '\0' ? text : "an exception without words");
  // strdup fails only without memory; an abort is then the honest end.
  if (copy == nullptr) {
    std::abort();
  }
  return copy;
}

template <class Work>
char* guarded(Work&& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const c10::Error& error) {
    return copy_message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return copy_message(error.what());
  } catch (...) {
    return copy_message("an exception of unknown type");
  }
}

inline std::vector<at::Tensor> list_of(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    list.push_back(*tensors[i]);
  }
  return list;
}

c10::intrusive_ptr<c10d::Store> make_store(const pf_store_calls& calls, std::chrono::milliseconds timeout);

// One operation in flight. Who claims it first, gloo or `Group::end`, completes its future.
struct Operation {
  std::atomic<bool> claimed{false};
  c10::intrusive_ptr<c10::ivalue::Future> future;
};

struct Group {
  c10::intrusive_ptr<c10d::ProcessGroup> process_group;
  c10::intrusive_ptr<c10d::Backend> backend;
  std::chrono::milliseconds timeout;
  bool is_nccl;
  // NCCL: the GPU.
  int device;
  // Seconds from the start of operations to their results, all added up; on a GPU by its own clock, its own work before an
  // operation not counted.
  double waited_s = 0;

  using Launch = std::function<c10::intrusive_ptr<c10d::Work>()>;

  // Launches an operation and blocks until it is done, within the timeout; throws its exception.
  void run(const Launch& launch);

  // Gloo: a future of `work` that `end` can fail. Gloo itself forgets a send that it wrote into a socket just closed
  // (its exception reaches the queue before the send does), and would wait for it until the timeout.
  c10::intrusive_ptr<c10::ivalue::Future> track(const c10::intrusive_ptr<c10d::Work>& work);

  // Fails everything in flight and everything to come. Waits for nobody.
  void end(const std::string& why);
  // NCCL: takes the communicator down, which may take as long as the timeout. Gloo has no such thing.
  void abort();
  bool has_ended();

 private:
  std::mutex mutex_;
  std::optional<std::string> over_;
  std::vector<std::shared_ptr<Operation>> running_;
};

// Gives the process the settings that it needs, unless a user has. The first call counts.
void settle_environment();

#ifdef USE_C10D_NCCL
c10::intrusive_ptr<c10d::Backend> make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, std::chrono::milliseconds timeout, int device);
// Makes the communicator and proves that it works; `Group::end` ends that too.
void connect_nccl(Group& group);
// See `Group::run`.
void run_nccl(Group& group, const Group::Launch& launch);
// A moment on the current stream.
c10::Event timed_event(Group& group);
// Waits on the host until the current stream is idle, looking for failed communicators meanwhile and once more after it;
// the seconds since `since` on the GPU's clock.
double wait_nccl(Group& group, const c10::Event& since);
#endif

} // namespace pf
