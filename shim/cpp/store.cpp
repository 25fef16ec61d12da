// c10d::Store answered by Rust.
//
// Invariant: a callback's failure becomes a C++ exception here; no Rust panic arrives (the callbacks catch them).

#include <stdexcept>

#include "shim.hpp"

namespace {

pf_slice slice(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

pf_slice slice(const std::vector<uint8_t>& bytes) {
  return {bytes.data(), bytes.size()};
}

std::vector<pf_slice> slices(const std::vector<std::string>& keys) {
  std::vector<pf_slice> list;
  list.reserve(keys.size());
  for (const auto& key : keys) {
    list.push_back(slice(key));
  }
  return list;
}

int must(int code, const char* what, const std::string& key) {
  if (code < 0) {
    throw std::runtime_error(std::string("rendezvous store: ") + what + " " + key + " failed");
  }
  return code;
}

class RustStore final : public c10d::Store {
 public:
  RustStore(const pf_store_calls& calls, std::chrono::milliseconds timeout) : c10d::Store(timeout), calls_(calls) {}

  RustStore(const RustStore&) = delete;
  RustStore& operator=(const RustStore&) = delete;

  ~RustStore() override {
    calls_.drop(calls_.user);
  }

  using c10d::Store::compareSet;
  using c10d::Store::set;

  // The Rust side is thread-safe, so a copy is the same object.
  c10::intrusive_ptr<c10d::Store> clone() override {
    return c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(this);
  }

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    must(calls_.set(calls_.user, slice(key), slice(value)), "set", key);
  }

  std::vector<uint8_t> get(const std::string& key) override {
    std::vector<uint8_t> bytes;
    must(calls_.get(calls_.user, slice(key), getTimeout().count(), &bytes), "get", key);
    return bytes;
  }

  int64_t add(const std::string& key, int64_t amount) override {
    int64_t sum = 0;
    must(calls_.add(calls_.user, slice(key), amount, &sum), "add", key);
    return sum;
  }

  bool check(const std::vector<std::string>& keys) override {
    const auto list = slices(keys);
    return must(calls_.check(calls_.user, list.data(), list.size()), "check", "keys") != 0;
  }

  void wait(const std::vector<std::string>& keys) override {
    wait(keys, getTimeout());
  }

  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    const auto list = slices(keys);
    must(calls_.wait(calls_.user, list.data(), list.size(), timeout.count()), "wait", keys.empty() ? "" : keys[0]);
  }

  std::vector<uint8_t> compareSet(
      const std::string& key, const std::vector<uint8_t>& expected, const std::vector<uint8_t>& desired) override {
    std::vector<uint8_t> bytes;
    must(calls_.compare_set(calls_.user, slice(key), slice(expected), slice(desired), &bytes), "compare_set", key);
    return bytes;
  }

  bool deleteKey(const std::string& key) override {
    return must(calls_.remove(calls_.user, slice(key)), "delete", key) != 0;
  }

  // Neither Gloo nor NCCL asks for it, and a store that serves many generations has no such number.
  int64_t getNumKeys() override {
    throw std::runtime_error("rendezvous store: the number of keys is not known");
  }

 private:
  pf_store_calls calls_;
};

} // namespace

c10::intrusive_ptr<c10d::Store> pf::make_store(const pf_store_calls& calls, std::chrono::milliseconds timeout) {
  return c10::make_intrusive<RustStore>(calls, timeout);
}

extern "C" void pf_bytes_assign(void* bytes, const uint8_t* data, size_t len) {
  static_cast<std::vector<uint8_t>*>(bytes)->assign(data, data + len);
}
