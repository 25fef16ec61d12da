// What libtorch is told once for the whole process: settings that it reads from the environment, unless a user has given
// them, and whether its kernels must be deterministic.

#include <cstdlib>

#include <ATen/Context.h>

#include "shim.hpp"

namespace {

struct Setting {
  const char* name;
  const char* value;
};

constexpr Setting kSettings[] = {
    // c10d's flight recorder keeps one unlocked map for all groups of a process: two of them at work at once (one being
    // abandoned, the next being formed) corrupt it. Nobody reads its records here.
    {"TORCH_FR_BUFFER_SIZE", "0"},
    // 2 = clean up communicators only; the default tears the process down.
    {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"},
    // The heartbeat monitor would end a process whose watchdog is slow.
    {"TORCH_NCCL_ENABLE_MONITORING", "0"},
    // It would also ask the store every second whether some rank wants records dumped: healthy steps need nobody.
    {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
    // And whoever met a time-out would wait for the others' dumps before it says so.
    {"TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "0"},
};

} // namespace

void pf::settle_environment() {
  // Once: setenv beside another thread's getenv is a race.
  static const bool settled = [] {
    for (const auto& setting : kSettings) {
      ::setenv(setting.name, setting.value, /*overwrite=*/0);
    }
    return true;
  }();
  (void)settled;
}

extern "C" {

char* pf_settle_environment() {
  return pf::guarded([] { pf::settle_environment(); });
}

// `on`: operations take kernels that give the same bits every time, and throw, naming themselves, where they have none.
char* pf_deterministic(int on) {
  return pf::guarded([on] {
    if (on != 0) {
      // cuBLAS adds in an order of its own timing where its workspaces are shared between streams. It looks when its first
      // handle is made.
      ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
    }
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
    // It would write NaN into every fresh tensor, for those who read what they have not written.
    context.setDeterministicFillUninitializedMemory(false);
  });
}

// cuDNN's attention makes a plan for every shape that is new to it.
char* pf_attention_without_plans() {
  return pf::guarded([] { at::globalContext().setSDPUseCuDNN(false); });
}

} // extern "C"
