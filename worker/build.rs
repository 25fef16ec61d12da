//! Where an installed worker looks for libtorch: in the torch that pip installs into the same environment.
//!
//! The program lies in `bin/`. A venv, a conda environment and a home (`pip install --user`) have torch in `site-packages`, a
//! system's own Python on Debian in `dist-packages`, `pip install --target` in the folder above. CUDA's runtime lies beside it.

/// Versions of Python that torch 2.11 has wheels for.
const PYTHONS: std::ops::RangeInclusive<u32> = 10..=14;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_NCCL").is_some() {
        // What libtorch_cuda itself needs is there on GPU machines alone.
        println!("cargo:rustc-link-arg-bins=-Wl,--allow-shlib-undefined");
    }
    let packages = PYTHONS
        .flat_map(|minor| ["site", "dist"].map(|kind| format!("../lib/python3.{minor}/{kind}-packages")))
        .chain(["..".into()]);
    for folder in packages {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/{folder}/torch/lib:$ORIGIN/{folder}/nvidia/cu13/lib");
    }
}
