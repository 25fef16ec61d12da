// The few gloo declarations that ProcessGroupGloo.hpp needs; the libtorch wheel ships gloo's code but not its headers.
//
// Invariant: nothing here is constructed, destroyed or called virtually by the shim. Objects of these types are made
// and ended inside libtorch (shared_ptr carries its own deleter), so the layouts need not match, only the names.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  // Non-virtual and exported by libtorch_cpu.
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class Device;

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};
} // namespace transport

namespace rendezvous {
class Store {
 public:
  virtual ~Store() = default;
  virtual void set(const std::string& key, const std::vector<char>& data) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) = 0;
};
} // namespace rendezvous

} // namespace gloo
