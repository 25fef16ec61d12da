//! The main job on object storage: dataset, ledger and checkpoints in S3. (Resuming is tested on disk, in `resume`.)

use pixfleet_tests::s3::S3;
use pixfleet_tests::{Log, assert_same_losses, compose, pixfleet, run_file, scratch, succeed};

#[test]
fn trains_and_audits_on_s3() {
    let s3 = S3::start();
    let env = s3.env();
    let pairs: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    compose("s3://pixdata/mini", &pairs);

    let file = scratch().join("s3.toml");
    std::fs::write(&file, run_file("far", "s3://pixdata/mini", "s3://pixdata/runs")).expect("scratch is writable");
    let train = |workers: &str, set: &[&str]| {
        let mut command = pixfleet(["train"]);
        command.arg(&file).args(["--workers", workers, "--log", "json"]);
        for s in set {
            command.args(["--set", s]);
        }
        command.envs(pairs.iter().copied());
        Log::parse(&succeed(command).stdout).losses()
    };
    let whole = train("2", &["run.name=near"]);
    assert_eq!(whole.len(), 20);
    let again = train("3", &["run.name=far"]);
    assert_same_losses(&whole, &again, 1e-5, "two runs of one seed on S3");

    let mut audit = pixfleet(["audit", "s3://pixdata/runs/near"]);
    audit.envs(pairs.iter().copied());
    succeed(audit);
}
