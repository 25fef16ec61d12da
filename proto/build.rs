//! Compiles the .proto files with protox: nobody needs protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["pixfleet/v1/fleet.proto", "pixfleet/v1/meeting.proto"], ["proto"])?;
    // In the order of their names wherever they are shown.
    tonic_prost_build::configure().btree_map(".pixfleet.v1.Losses").compile_fds(files)?;
    Ok(())
}
