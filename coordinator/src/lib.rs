//! The coordinator's shell: tonic service, driver of the run machine, ledger and manifests in the run's store.
