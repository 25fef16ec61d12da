//! The store's bridge: C++ calls a [`RendezvousStore`] of Rust's.
//!
//! Invariant: no panic crosses into C++; a failed call leaves its typed error here, where the group finds it.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Slice;
use super::sockets::Addresses;
use crate::error::StoreError;
use crate::group::GroupConfig;
use crate::store::RendezvousStore;

/// `pf_store_calls` of shim.hpp.
#[repr(C)]
pub(super) struct StoreCalls {
    user: *mut c_void,
    set: unsafe extern "C" fn(*mut c_void, Slice, Slice) -> c_int,
    get: unsafe extern "C" fn(*mut c_void, Slice, i64, *mut c_void) -> c_int,
    add: unsafe extern "C" fn(*mut c_void, Slice, i64, *mut i64) -> c_int,
    check: unsafe extern "C" fn(*mut c_void, *const Slice, usize) -> c_int,
    wait: unsafe extern "C" fn(*mut c_void, *const Slice, usize, i64) -> c_int,
    compare_set: unsafe extern "C" fn(*mut c_void, Slice, Slice, Slice, *mut c_void) -> c_int,
    remove: unsafe extern "C" fn(*mut c_void, Slice) -> c_int,
    drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn pf_bytes_assign(bytes: *mut c_void, data: *const u8, len: usize);
}

/// One group's view of the store: its keys prefixed, its last error kept, its peers' addresses noted.
pub(super) struct Bridge {
    store: Arc<dyn RendezvousStore>,
    prefix: String,
    world: u32,
    last: Mutex<Option<StoreError>>,
    pub(super) addresses: Addresses,
}

impl Bridge {
    pub(super) fn new(store: Arc<dyn RendezvousStore>, config: &GroupConfig) -> Arc<Self> {
        let prefix = format!("g{}/", config.generation);
        let addresses = Addresses::new(config.rank);
        Arc::new(Self { store, prefix, world: config.world, last: Mutex::new(None), addresses })
    }

    /// Callbacks that keep the bridge alive until C++ calls `drop`.
    pub(super) fn calls(self: &Arc<Self>) -> StoreCalls {
        StoreCalls {
            user: Arc::into_raw(Arc::clone(self)).cast_mut().cast(),
            set,
            get,
            add,
            check,
            wait,
            compare_set,
            remove,
            drop: drop_bridge,
        }
    }

    pub(super) fn take_error(&self) -> Option<StoreError> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn world(&self) -> i64 {
        i64::from(self.world)
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn store(&self) -> &dyn RendezvousStore {
        self.store.as_ref()
    }

    /// Runs a callback's body: -1 and the error kept, or its value.
    fn answer(&self, body: impl FnOnce() -> Result<c_int, StoreError>) -> c_int {
        let error = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(value)) => return value,
            Ok(Err(error)) => error,
            Err(_panic) => StoreError::Unsupported { what: "answer: it panicked" },
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        -1
    }
}

/// A negative or huge timeout of C++'s means "no limit"; an hour is no limit to a rendezvous.
fn duration(millis: i64) -> Duration {
    const LONGEST: u64 = 3_600_000;
    Duration::from_millis(u64::try_from(millis).unwrap_or(LONGEST).min(LONGEST))
}

/// # Safety
/// `user` came from [`Bridge::calls`] and its `drop` was not called yet.
unsafe fn bridge<'a>(user: *mut c_void) -> &'a Bridge {
    // SAFETY: as above; the Arc behind it is alive until `drop`.
    unsafe { &*user.cast::<Bridge>() }
}

/// # Safety
/// `slice` covers `len` live bytes.
unsafe fn bytes<'a>(slice: Slice) -> &'a [u8] {
    if slice.len == 0 {
        return &[];
    }
    // SAFETY: as above; an empty vector of C++ may be null and was answered before.
    unsafe { std::slice::from_raw_parts(slice.data, slice.len) }
}

/// # Safety
/// As [`bytes`].
unsafe fn text(slice: Slice) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { bytes(slice) }).into_owned()
}

/// # Safety
/// `keys` points to `count` slices, each as in [`bytes`].
unsafe fn texts(bridge: &Bridge, keys: *const Slice, count: usize) -> Vec<String> {
    // SAFETY: the caller's.
    (0..count).map(|i| bridge.key(&unsafe { text(*keys.add(i)) })).collect()
}

// SAFETY of all callbacks: C++ (shim/store.cpp) passes the `user` of `calls`, slices that live for the call, and an
// out-pointer that is valid for the call.

unsafe extern "C" fn set(user: *mut c_void, key: Slice, value: Slice) -> c_int {
    let (bridge, key, value) = unsafe { (bridge(user), text(key), bytes(value)) };
    bridge.answer(|| {
        bridge.addresses.note(&key, value);
        bridge.store.set(&bridge.key(&key), value).map(|()| 0)
    })
}

unsafe extern "C" fn get(user: *mut c_void, key: Slice, timeout_ms: i64, out: *mut c_void) -> c_int {
    let (bridge, key) = unsafe { (bridge(user), text(key)) };
    bridge.answer(|| {
        let value = bridge.store.get(&bridge.key(&key), duration(timeout_ms))?;
        bridge.addresses.note(&key, &value);
        unsafe { pf_bytes_assign(out, value.as_ptr(), value.len()) };
        Ok(0)
    })
}

unsafe extern "C" fn add(user: *mut c_void, key: Slice, amount: i64, sum: *mut i64) -> c_int {
    let (bridge, key) = unsafe { (bridge(user), text(key)) };
    bridge.answer(|| {
        let new = bridge.store.add(&bridge.key(&key), amount)?;
        unsafe { *sum = new };
        Ok(0)
    })
}

unsafe extern "C" fn check(user: *mut c_void, keys: *const Slice, count: usize) -> c_int {
    let bridge = unsafe { bridge(user) };
    bridge.answer(|| {
        let keys = unsafe { texts(bridge, keys, count) };
        bridge.store.check(&keys).map(c_int::from)
    })
}

unsafe extern "C" fn wait(user: *mut c_void, keys: *const Slice, count: usize, timeout_ms: i64) -> c_int {
    let bridge = unsafe { bridge(user) };
    bridge.answer(|| {
        let keys = unsafe { texts(bridge, keys, count) };
        bridge.store.wait(&keys, duration(timeout_ms)).map(|()| 0)
    })
}

unsafe extern "C" fn compare_set(
    user: *mut c_void,
    key: Slice,
    expected: Slice,
    desired: Slice,
    out: *mut c_void,
) -> c_int {
    let (bridge, key) = unsafe { (bridge(user), text(key)) };
    let (expected, desired) = unsafe { (bytes(expected), bytes(desired)) };
    bridge.answer(|| {
        let value = bridge.store.compare_set(&bridge.key(&key), expected, desired)?;
        unsafe { pf_bytes_assign(out, value.as_ptr(), value.len()) };
        Ok(0)
    })
}

unsafe extern "C" fn remove(user: *mut c_void, key: Slice) -> c_int {
    let (bridge, key) = unsafe { (bridge(user), text(key)) };
    bridge.answer(|| bridge.store.delete(&bridge.key(&key)).map(c_int::from))
}

unsafe extern "C" fn drop_bridge(user: *mut c_void) {
    // SAFETY: C++ calls this once, from the store's destructor, for the Arc that `calls` leaked. Dropping a store of
    // the caller's may panic; the panic ends here.
    let arc = unsafe { Arc::from_raw(user.cast::<Bridge>().cast_const()) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(arc)));
}
