// c10d::Reducer for one generation.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <sstream>
#include <utility>

#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "shim.hpp"

namespace {

// c10d gathers the order of arriving gradients at every backward until `rebuild_buckets` is called. We never call it,
// so that list would grow for ever; saying at birth that it has happened keeps it empty, and the buckets fixed.
class FixedBuckets final : public c10d::Reducer {
 public:
  using c10d::Reducer::Reducer;

  void fix() {
    has_rebuilt_bucket_ = true;
  }
};

using Clock = std::chrono::steady_clock;

// When the newest bucket went out; after the last one backward does nothing but wait.
struct Launched {
  // By the host's clock; 0: none did. A host that only gives orders to a GPU is far ahead of it: there the GPU's counts.
  std::atomic<Clock::rep> host{0};
  std::optional<c10::Event> device;
};

// The sum over ranks, on CPUs through a future that the group can fail (see `Group::track`).
class TrackedSum final : public c10d::CppCommHookInterface<pf::Group*> {
 public:
  TrackedSum(pf::Group* group, Launched* launched)
      : c10d::CppCommHookInterface<pf::Group*>(group), launched_(launched) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> tensors{bucket.getBufferRef()};
    const auto work = state_->backend->allreduce(tensors);
    launched_->host.store(Clock::now().time_since_epoch().count());
#ifdef USE_C10D_NCCL
    if (state_->is_nccl) {
      launched_->device.emplace(pf::timed_event(*state_));
      return work->getFuture();
    }
#endif
    return state_->track(work);
  }

 private:
  Launched* launched_;
};

struct Reducer {
  Launched launched;
  double waited_s = 0;
  std::unique_ptr<FixedBuckets> inner;
  std::vector<std::vector<size_t>> buckets;
  std::vector<at::Tensor> params;

  // A bucket may still be written by an all-reduce that was given up: whoever comes next must not add to it.
  ~Reducer() {
    for (auto& param : params) {
      param.mutable_grad().reset();
    }
  }
};

} // namespace

extern "C" {

// The group must outlive the reducer.
char* pf_reducer_new(
    pf::Group* group, at::Tensor* const* params, const pf_slice* names, size_t count, Reducer** out) {
  return pf::guarded([&] {
    const auto list = pf::list_of(params, count);
    // Gradients become ready from the last parameter to the first: buckets follow that order.
    std::vector<at::Tensor> backwards(list.rbegin(), list.rend());
    std::vector<int64_t> indices;
    std::unordered_map<size_t, std::string> named;
    for (size_t i = 0; i < count; ++i) {
      indices.push_back(static_cast<int64_t>(count - 1 - i));
      named[i] = std::string(reinterpret_cast<const char*>(names[i].data), names[i].len);
    }
    const std::vector<bool> dense(count, false);
    const size_t first = c10d::kDefaultFirstBucketBytes;
    const size_t cap = c10d::kDefaultBucketBytesCap;
    auto assigned = c10d::compute_bucket_assignment_by_size(backwards, {first, cap}, dense, indices);
    auto reducer = std::make_unique<Reducer>();
    reducer->params = list;
    reducer->buckets = std::get<0>(assigned);
    const std::vector<int64_t> caps(std::get<1>(assigned).begin(), std::get<1>(assigned).end());
    reducer->inner = std::make_unique<FixedBuckets>(
        list, reducer->buckets, group->process_group, dense, static_cast<int64_t>(cap),
        /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true, named, static_cast<int64_t>(first),
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, caps);
    reducer->inner->fix();
    reducer->inner->register_comm_hook(std::make_unique<TrackedSum>(group, &reducer->launched));
    *out = reducer.release();
  });
}

char* pf_reducer_free(Reducer* reducer) {
  return pf::guarded([&] { delete reducer; });
}

// Bucket indices as one flat list, each bucket ended by -1; `out` may be null to ask for the length.
size_t pf_reducer_buckets(const Reducer* reducer, int64_t* out) {
  size_t length = 0;
  for (const auto& bucket : reducer->buckets) {
    for (const auto index : bucket) {
      if (out != nullptr) {
        out[length] = static_cast<int64_t>(index);
      }
      ++length;
    }
    if (out != nullptr) {
      out[length] = -1;
    }
    ++length;
  }
  return length;
}

char* pf_reducer_prepare(Reducer* reducer) {
  return pf::guarded([&] { reducer->inner->prepare_for_backward({}); });
}

char* pf_reducer_finish(Reducer* reducer, pf::Group* group) {
  return pf::guarded([&] {
    const Clock::rep launched = reducer->launched.host.exchange(0);
    const Clock::duration since(Clock::now().time_since_epoch().count() - launched);
    reducer->waited_s = launched == 0 ? 0 : std::chrono::duration<double>(since).count();
    reducer->inner->check_finalized();
#ifdef USE_C10D_NCCL
    if (group->is_nccl) {
      // Without a bucket there is nothing to wait for.
      auto since = std::exchange(reducer->launched.device, std::nullopt);
      reducer->waited_s = since.has_value() ? pf::wait_nccl(*group, *since) : 0;
    }
#else
    (void)group;
#endif
  });
}

// Seconds between the last bucket's start and the last `pf_reducer_finish`.
double pf_reducer_waited_s(const Reducer* reducer) {
  return reducer->waited_s;
}

} // extern "C"
