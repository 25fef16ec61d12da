//! The CUDA half of libtorch needs libraries that machines with a GPU alone have: elsewhere the test is linked without them, which
//! shows that libtorch has every symbol of ours.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_NCCL").is_some() {
        println!("cargo:rustc-link-arg-tests=-Wl,--allow-shlib-undefined");
    }
}
