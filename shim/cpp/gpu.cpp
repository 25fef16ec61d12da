// Compiles kernels/gpu.cu for the GPU at hand, once a process, by the NVRTC that torch's wheel brings, and launches them on the
// current stream.

#include <dlfcn.h>

#include <array>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "gpu.hpp"

namespace pf::gpu {
namespace {

// Written by build.rs from kernels/gpu.cu.
const char* const kSource =
#include "gpu_source.inc"
    ;

constexpr int kThreads = 128; // As in kernels/gpu.cu.

// The few functions of NVRTC that are called. It lies beside the CUDA runtime, whatever folder that was found in.
class Nvrtc {
 public:
  // The kernels as machine code for compute capability `major`.`minor`.
  static std::vector<char> compiled(int major, int minor) {
    const Nvrtc nvrtc;
    void* program = nullptr;
    nvrtc.must(nvrtc.call<int(void**, const char*, const char*, int, const char* const*, const char* const*)>(
        "nvrtcCreateProgram")(&program, kSource, "gpu.cu", 0, nullptr, nullptr));
    const auto arch = "--gpu-architecture=sm_" + std::to_string(10 * major + minor);
    const std::array<const char*, 2> options = {arch.c_str(), "--std=c++17"};
    const int failed = nvrtc.call<int(void*, int, const char* const*)>("nvrtcCompileProgram")(
        program, static_cast<int>(options.size()), options.data());
    if (failed != 0) {
      throw std::runtime_error("the kernels do not compile for " + arch + ": " + nvrtc.log(program));
    }
    size_t size = 0;
    nvrtc.must(nvrtc.call<int(void*, size_t*)>("nvrtcGetCUBINSize")(program, &size));
    std::vector<char> code(size);
    nvrtc.must(nvrtc.call<int(void*, char*)>("nvrtcGetCUBIN")(program, code.data()));
    nvrtc.must(nvrtc.call<int(void**)>("nvrtcDestroyProgram")(&program));
    return code;
  }

 private:
  void* library_;

  Nvrtc() {
    constexpr const char* kName = "libnvrtc.so.13";
    Dl_info runtime{};
    std::string beside;
    if (dladdr(reinterpret_cast<void*>(&cudaGetDeviceCount), &runtime) != 0 && runtime.dli_fname != nullptr) {
      const std::string path = runtime.dli_fname;
      beside = path.substr(0, path.rfind('/') + 1) + kName;
    }
    library_ = dlopen(beside.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library_ == nullptr) {
      library_ = dlopen(kName, RTLD_NOW | RTLD_GLOBAL);
    }
    if (library_ == nullptr) {
      throw std::runtime_error(std::string("NVRTC cannot be loaded (pip install nvidia-cuda-nvrtc): ") + dlerror());
    }
  }

  template <class Signature>
  Signature* call(const char* name) const {
    auto* found = reinterpret_cast<Signature*>(dlsym(library_, name));
    if (found == nullptr) {
      throw std::runtime_error(std::string("NVRTC has no ") + name);
    }
    return found;
  }

  void must(int result) const {
    if (result != 0) {
      throw std::runtime_error(std::string("NVRTC: ") + call<const char*(int)>("nvrtcGetErrorString")(result));
    }
  }

  std::string log(void* program) const {
    size_t size = 0;
    must(call<int(void*, size_t*)>("nvrtcGetProgramLogSize")(program, &size));
    std::string log(size, ' ');
    must(call<int(void*, char*)>("nvrtcGetProgramLog")(program, log.data()));
    return log;
  }
};

// The kernel `name`, for the current device. A library is loaded for all devices of one capability.
cudaKernel_t kernel(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, cudaLibrary_t> libraries;
  static std::map<std::pair<cudaLibrary_t, std::string>, cudaKernel_t> kernels;
  const int device = c10::cuda::current_device();
  int major = 0, minor = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  const std::lock_guard<std::mutex> lock(mutex);
  auto& library = libraries[{major, minor}];
  if (library == nullptr) {
    const auto code = Nvrtc::compiled(major, minor);
    C10_CUDA_CHECK(cudaLibraryLoadData(&library, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  }
  auto& found = kernels[{library, name}];
  if (found == nullptr) {
    C10_CUDA_CHECK(cudaLibraryGetKernel(&found, library, name.c_str()));
  }
  return found;
}

std::string of(const char* name, const at::Tensor& first) {
  return std::string(name) + (first.scalar_type() == at::kBFloat16 ? "_bf16" : "_float");
}

std::string of(const char* name, const at::Tensor& first, const at::Tensor& second) {
  return of(name, first) + (second.scalar_type() == at::kBFloat16 ? "_bf16" : "_float");
}

void* data(const at::Tensor& x) {
  return x.data_ptr();
}

// Arguments must have the types that the kernel declares.
template <class... Arguments>
void launch(const std::string& name, const at::Tensor& on, int64_t blocks, int threads, size_t shared, Arguments... arguments) {
  const c10::cuda::CUDAGuard guard(on.device());
  std::array<void*, sizeof...(Arguments)> list = {&arguments...};
  C10_CUDA_CHECK(cudaLaunchKernel(
      reinterpret_cast<const void*>(kernel(name)), dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
      list.data(), shared, c10::cuda::getCurrentCUDAStream(on.get_device())));
}

int wide(int64_t x) {
  TORCH_CHECK(x >= 0 && x < (int64_t{1} << 31), "a tensor is too large for a kernel: ", x);
  return static_cast<int>(x);
}

// Shared memory for the sums of weight and bias.
size_t sums_of(int64_t width) {
  constexpr size_t kShared = 48 << 10;
  const size_t bytes = 2 * static_cast<size_t>(width) * sizeof(float);
  TORCH_CHECK(bytes <= kShared, "a norm over ", width, " numbers is too wide for a kernel");
  return bytes;
}

// Runs of rows whose sums are added up by one block, and how many.
struct RunsOf {
  int run;
  int64_t blocks;

  explicit RunsOf(int64_t rows) {
    run = wide(std::max<int64_t>(8, (rows + 1023) / 1024));
    blocks = (rows + run - 1) / run;
  }
};

int64_t covering(int64_t count, int64_t threads) {
  return std::min<int64_t>((count + threads - 1) / threads, int64_t{1} << 20);
}

void heads(
    const char* name, const at::Tensor& rows, const std::vector<at::Tensor>& parts, const at::Tensor& turn, int64_t turned) {
  if (rows.numel() == 0) {
    return;
  }
  const auto sizes = parts[0].sizes();
  TORCH_CHECK(sizes[3] % 2 == 0, "heads of an odd width: ", sizes);
  const int64_t pairs = rows.numel() / 2, joined = sizes[2] * sizes[3] / 2;
  const auto part = [&](size_t i) { return i < parts.size() ? data(parts[i]) : nullptr; };
  launch(
      of(name, rows, parts[0]), rows, covering(pairs, 256), 256, 0, data(rows), part(0), part(1), part(2),
      turned > 0 ? data(turn) : nullptr, static_cast<long long>(pairs), wide(sizes[1]), wide(static_cast<int64_t>(parts.size())),
      wide(joined), wide(sizes[3]), wide(turned));
}

} // namespace

bool can(int device) {
  int major = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 8;
}

void norm(const Norm& norm, const at::Tensor& x, at::Tensor& y) {
  if (const int64_t rows = norm.mean.numel(); rows > 0) {
    launch(
        of("norm", x, y), x, rows, kThreads, 0, data(x), data(norm.weight), data(norm.bias), data(norm.mean), data(norm.rstd),
        data(y), wide(norm.weight.numel()), static_cast<float>(norm.eps));
  }
}

at::Tensor norm_back(const Norm& norm, const at::Tensor& x, const at::Tensor& dy, at::Tensor& dx) {
  const int64_t rows = norm.mean.numel(), width = norm.weight.numel();
  const RunsOf runs(rows);
  const auto sums = at::empty({runs.blocks, 2, width}, norm.weight.options());
  if (rows > 0) {
    launch(
        of("norm_back", x, dy), x, runs.blocks, kThreads, sums_of(width), data(x), data(norm.weight), data(norm.mean),
        data(norm.rstd), data(dy), data(dx), data(sums), wide(width), static_cast<long long>(rows), runs.run);
  }
  return sums.sum(0);
}

void swiglu_norm(const Norm& norm, const at::Tensor& gated, at::Tensor& y) {
  if (const int64_t rows = norm.mean.numel(); rows > 0) {
    launch(
        of("swiglu_norm", gated), gated, rows, kThreads, 0, data(gated), data(norm.weight), data(norm.bias), data(norm.mean),
        data(norm.rstd), data(y), wide(norm.weight.numel()), wide(y.size(-1)), static_cast<float>(norm.eps));
  }
}

at::Tensor swiglu_norm_back(const Norm& norm, const at::Tensor& gated, const at::Tensor& dy, at::Tensor& dgated) {
  const int64_t rows = norm.mean.numel(), width = norm.weight.numel();
  const RunsOf runs(rows);
  const auto sums = at::empty({runs.blocks, 2, width}, norm.weight.options());
  if (rows > 0) {
    launch(
        of("swiglu_norm_back", gated), gated, runs.blocks, kThreads, sums_of(width), data(gated), data(norm.weight),
        data(norm.mean), data(norm.rstd), data(dy), data(dgated), data(sums), wide(width), wide(dy.size(-1)),
        static_cast<long long>(rows), runs.run);
  }
  return sums.sum(0);
}

void split(const at::Tensor& rows, const std::vector<at::Tensor>& parts, const at::Tensor& turn, int64_t turned) {
  heads("split", rows, parts, turn, turned);
}

void join(const at::Tensor& rows, const std::vector<at::Tensor>& parts, const at::Tensor& turn, int64_t turned) {
  heads("join", rows, parts, turn, turned);
}

void quick_gelu(const at::Tensor& x, at::Tensor& y) {
  if (x.numel() > 0) {
    launch(of("quick_gelu", x), x, covering(x.numel(), 256), 256, 0, data(x), data(y), static_cast<long long>(x.numel()));
  }
}

void quick_gelu_back(const at::Tensor& x, const at::Tensor& dy, at::Tensor& dx) {
  if (x.numel() > 0) {
    launch(
        of("quick_gelu_back", x), x, covering(x.numel(), 256), 256, 0, data(x), data(dy), data(dx),
        static_cast<long long>(x.numel()));
  }
}

} // namespace pf::gpu
