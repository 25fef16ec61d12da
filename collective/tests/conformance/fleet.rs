//! Ranks as real processes: the test binary starts itself again, once per rank, with a store served by the parent.
//!
//! Invariant: nothing waits by sleeping; parent and ranks tell each other things through the store.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pixfleet_collective::{Backend, Group, GroupConfig, HashStore, RendezvousStore};

use crate::tcp_store::{TcpStore, serve};

/// Longer than any step of a test may take; reached only by a failing one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A child's place.
pub(crate) struct Rank {
    pub(crate) rank: u32,
    pub(crate) world: u32,
    store: Arc<dyn RendezvousStore>,
}

impl Rank {
    /// Present in a child.
    pub(crate) fn from_environment() -> Option<Self> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let address = std::env::var("PIXFLEET_TEST_STORE").ok()?;
        Some(Self {
            rank: number("PIXFLEET_TEST_RANK")?,
            world: number("PIXFLEET_TEST_WORLD")?,
            store: Arc::new(TcpStore::new(address.parse().unwrap())),
        })
    }

    /// Joins a generation of `world` as `rank`.
    pub(crate) fn join(&self, generation: u64, rank: u32, world: u32) -> Group {
        let config = GroupConfig::loopback(rank, world, generation);
        Group::new(Backend::Gloo, Arc::clone(&self.store), config).unwrap()
    }

    pub(crate) fn tell(&self, key: &str, value: &str) {
        self.store.set(key, value.as_bytes()).unwrap();
    }
}

/// The parent's side: its store, and one child per rank.
pub(crate) struct Fleet {
    store: Arc<HashStore>,
    pub(crate) children: Vec<Child>,
}

impl Fleet {
    /// Starts `world` copies of the test `name` (its whole path).
    pub(crate) fn start(name: &str, world: u32) -> Self {
        let store = Arc::new(HashStore::new());
        let address = serve(Arc::clone(&store));
        let start = |rank: u32| {
            Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture", "--test-threads=1"])
                .env("PIXFLEET_TEST_STORE", address.to_string())
                .env("PIXFLEET_TEST_RANK", rank.to_string())
                .env("PIXFLEET_TEST_WORLD", world.to_string())
                .env("OMP_NUM_THREADS", "1")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self { store, children: (0..world).map(start).collect() }
    }

    /// What a rank told under `key`, when it has.
    pub(crate) fn hear(&self, key: &str) -> String {
        String::from_utf8(self.store.get(key, PATIENCE).unwrap()).unwrap()
    }

    /// Waits for all children that are left; every one must have passed.
    pub(crate) fn all_pass(mut self) {
        for (index, mut child) in std::mem::take(&mut self.children).into_iter().enumerate() {
            let status = child.wait().unwrap();
            assert!(status.success(), "child {index} ended with {status}; its message stands above");
        }
    }
}

impl Drop for Fleet {
    /// A failing parent leaves no children behind.
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `body` in each of `world` processes, from the test `name`.
pub(crate) fn on_every_rank(name: &str, worlds: impl IntoIterator<Item = u32>, body: fn(&Rank)) {
    match Rank::from_environment() {
        Some(rank) => body(&rank),
        None => worlds.into_iter().for_each(|world| Fleet::start(name, world).all_pass()),
    }
}
