//! Compiles `cpp/` against the headers of the libtorch that `LIBTORCH` names (`.cargo/config.toml`).
//!
//! Invariant: the compiler sees the same C++ ABI as the wheel and tch's own glue; with the `nccl` feature every CUDA
//! header comes from PyPI packages beside torch (scripts/setup-nccl.sh), no CUDA toolkit is needed.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Headers that libtorch's own include and the wheels do not bring, or bring with hundreds of megabytes. Each is made to
/// lead to a short file of ours with the few names that matter.
const FORWARDED: [(&str, &str); 10] = [
    ("gloo/algorithm.h", "forward/gloo.hpp"),
    ("gloo/common/error.h", "forward/gloo.hpp"),
    ("gloo/context.h", "forward/gloo.hpp"),
    ("gloo/rendezvous/store.h", "forward/gloo.hpp"),
    ("gloo/transport/device.h", "forward/gloo.hpp"),
    ("cublas_v2.h", "forward/cuda.hpp"),
    ("cublasLt.h", "forward/cuda.hpp"),
    ("cusolverDn.h", "forward/cuda.hpp"),
    ("cusolver_common.h", "forward/cuda.hpp"),
    ("cusparse.h", "forward/cuda.hpp"),
];

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let libtorch = env::var_os("LIBTORCH").map(PathBuf::from).unwrap_or_else(|| {
        panic!("LIBTORCH does not name a libtorch 2.11: run `make setup`, or set it to the `torch` folder of a wheel")
    });
    let include = libtorch.join("include");
    assert!(
        include.join("torch/csrc/distributed/c10d/Store.hpp").exists(),
        "no libtorch headers at {}: run `make setup`, or point LIBTORCH to the `torch` folder of a 2.11 wheel",
        include.display()
    );
    let nccl = env::var_os("CARGO_FEATURE_NCCL").is_some();
    vector_kernels(&include);
    let mut build = against(&include);
    build
        .define("USE_C10D_GLOO", None)
        .include(forwarding_headers())
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .flag_if_supported("-Wno-unused-parameter")
        .flag("-fopenmp")
        .file("cpp/all.cpp");
    if nccl {
        build.define("USE_C10D_NCCL", None);
        for folder in cuda_headers(&libtorch) {
            build.flag("-isystem").flag(folder);
        }
    }
    build.compile("pixfleet_cpp");

    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    println!("cargo:rustc-link-lib=torch_cpu");
    // The OpenMP that libtorch brings: a second one beside it would start threads of its own.
    println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    println!("cargo:rustc-link-lib=c10");
    if nccl {
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
        // torch's headers call CUDA's runtime inline; its wheel lies beside torch and has no unversioned name.
        println!("cargo:rustc-link-search=native={}", beside(&libtorch, "cu13/lib").display());
        println!("cargo:rustc-link-lib=dylib:+verbatim=libcudart.so.13");
    }
}

/// What compiles against libtorch's headers.
fn against(include: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", env::var("LIBTORCH_CXX11_ABI").as_deref().unwrap_or("1"))
        .include("cpp")
        // System includes: their warnings are not ours.
        .flag("-isystem")
        .flag(include)
        // Line tables of torch's headers would double the time.
        .debug(false);
    build
}

/// Compiles the kernels once for each instruction set that libtorch itself tells apart.
fn vector_kernels(include: &Path) {
    const AVX2: &[&str] = &["-mavx2", "-mfma", "-mf16c"];
    // GCC takes the intrinsics' own undefined values for ours.
    const AVX512: &[&str] = &[
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mfma",
        "-mf16c",
        "-Wno-uninitialized",
        "-Wno-maybe-uninitialized",
    ];
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let sets: &[(&str, &[&str])] = &[("DEFAULT", &[]), ("AVX2", AVX2), ("AVX512", AVX512)];
    for (set, flags) in if x86 { sets } else { &sets[..1] } {
        let name = set.to_lowercase();
        let mut build = against(include);
        build
            .opt_level(3)
            .define("CPU_CAPABILITY", *set)
            .define(&format!("CPU_CAPABILITY_{set}"), None)
            .define("PF_TABLE", format!("table_{name}").as_str())
            .file("cpp/kernels/vector.cpp");
        for flag in *flags {
            build.flag(flag);
        }
        build.compile(&format!("pixfleet_kernels_{name}"));
    }
}

/// Writes the forwarding headers, and the kernels of GPUs as a string; returns their folder.
fn forwarding_headers() -> PathBuf {
    let root = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("forwarding");
    fs::create_dir_all(&root).expect("OUT_DIR is writable");
    let source = fs::read_to_string("cpp/kernels/gpu.cu").expect("the kernels are there");
    fs::write(root.join("gpu_source.inc"), format!("R\"cuda({source})cuda\"\n")).expect("OUT_DIR is writable");
    for (header, ours) in FORWARDED {
        let path = root.join(header);
        let folder = path.parent().expect("a header lies in a folder");
        fs::create_dir_all(folder).expect("OUT_DIR is writable");
        fs::write(&path, format!("#include \"{ours}\"\n")).expect("OUT_DIR is writable");
    }
    root
}

/// A folder of NVIDIA's wheels, which lie beside torch in the same site-packages.
fn beside(libtorch: &Path, folder: &str) -> PathBuf {
    let real = libtorch.canonicalize().expect("LIBTORCH exists");
    real.parent().expect("torch lies in site-packages").join("nvidia").join(folder)
}

/// The folders of CUDA and NCCL headers, beside torch in the same site-packages.
fn cuda_headers(libtorch: &Path) -> Vec<PathBuf> {
    let folders = ["cu13/include", "cu13/include/cccl", "nccl/include"].map(|folder| beside(libtorch, folder));
    for (folder, header) in folders.iter().zip(["cuda_runtime_api.h", "cuda", "nccl.h"]) {
        assert!(
            folder.join(header).exists(),
            "the `nccl` feature needs {}: run scripts/setup-nccl.sh VENV",
            folder.join(header).display()
        );
    }
    folders.to_vec()
}
