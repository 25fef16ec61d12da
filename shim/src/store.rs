//! The rendezvous store, as C++ asks it of Rust: `c10d::Store` answered by a [`C10dStore`].
//!
//! Invariant: no panic crosses into C++. A call that failed or panicked is an exception over there.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::Slice;

/// What c10d asks of its store, from several threads at once (gloo's and NCCL's own among them).
///
/// `None` is a failure. The store itself remembers why: an exception of C++'s could not carry it.
pub trait C10dStore: Send + Sync {
    /// Writes a value, over any older one.
    fn set(&self, key: &str, value: &[u8]) -> Option<()>;

    /// Reads a value, blocking until it is there.
    fn get(&self, key: &str, timeout: Duration) -> Option<Vec<u8>>;

    /// Adds to a counter (absent = 0) and returns its new value.
    fn add(&self, key: &str, amount: i64) -> Option<i64>;

    /// Whether every key is there, without blocking.
    fn check(&self, keys: &[String]) -> Option<bool>;

    /// Blocks until every key is there.
    fn wait(&self, keys: &[String], timeout: Duration) -> Option<()>;

    /// Writes `desired` if the value is `expected` (empty: also if absent), and returns the value that then stands
    /// (`expected` itself where the key is absent and `expected` is not empty).
    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Option<Vec<u8>>;

    /// Removes a key and says whether it was there.
    fn delete(&self, key: &str) -> Option<bool>;
}

/// `pf_store_calls` of shim.hpp.
///
/// What C++ (store.cpp) promises each callback: `user` is this struct's and `drop` was not called yet; slices, and arrays
/// of them, live for the call; out-pointers are valid for the call. The SAFETY comments below call this the promise.
#[repr(C)]
pub(crate) struct Calls {
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

/// What `user` points to.
type User = Arc<dyn C10dStore>;

unsafe extern "C" {
    fn pf_bytes_assign(bytes: *mut c_void, data: *const u8, len: usize);
}

impl Calls {
    /// Callbacks that keep the store alive until C++ calls `drop`.
    pub(crate) fn of(store: User) -> Self {
        let user = Box::into_raw(Box::new(store)).cast();
        Self { user, set, get, add, check, wait, compare_set, remove, drop: drop_user }
    }
}

/// Runs a callback's body: its value, or -1.
fn answer(body: impl FnOnce() -> Option<c_int>) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).ok().flatten().unwrap_or(-1)
}

/// A negative or huge timeout of C++'s means "no limit"; an hour is no limit to a rendezvous.
fn duration(millis: i64) -> Duration {
    const LONGEST: u64 = 3_600_000;
    Duration::from_millis(u64::try_from(millis).unwrap_or(LONGEST).min(LONGEST))
}

/// # Safety
/// `user` is that of a [`Calls`] whose `drop` is not called before `'a` ends.
unsafe fn store<'a>(user: *mut c_void) -> &'a dyn C10dStore {
    // SAFETY: the caller's; until `drop` the box that `Calls::of` leaked is alive.
    unsafe { (*user.cast::<User>()).as_ref() }
}

/// # Safety
/// `slice` covers `len` bytes that live for `'a`; an empty one may be null.
unsafe fn bytes<'a>(slice: Slice) -> &'a [u8] {
    if slice.len == 0 {
        return &[];
    }
    // SAFETY: the caller's, and not null.
    unsafe { std::slice::from_raw_parts(slice.data, slice.len) }
}

/// # Safety
/// As [`bytes`], for the call.
unsafe fn text(slice: Slice) -> String {
    // SAFETY: the caller's.
    String::from_utf8_lossy(unsafe { bytes(slice) }).into_owned()
}

/// # Safety
/// `keys` points to `count` slices, each as in [`text`].
unsafe fn texts(keys: *const Slice, count: usize) -> Vec<String> {
    // SAFETY: the caller's, for each of the `count`.
    (0..count).map(|at| unsafe { text(*keys.add(at)) }).collect()
}

/// # Safety
/// `out` is a live `std::vector<uint8_t>`.
unsafe fn assign(out: *mut c_void, value: &[u8]) {
    // SAFETY: the caller's; the bytes are copied during the call.
    unsafe { pf_bytes_assign(out, value.as_ptr(), value.len()) }
}

unsafe extern "C" fn set(user: *mut c_void, key: Slice, value: Slice) -> c_int {
    // SAFETY: the promise.
    let (store, key, value) = unsafe { (store(user), text(key), bytes(value)) };
    answer(|| store.set(&key, value).map(|()| 0))
}

unsafe extern "C" fn get(user: *mut c_void, key: Slice, timeout_ms: i64, out: *mut c_void) -> c_int {
    // SAFETY: the promise.
    let (store, key) = unsafe { (store(user), text(key)) };
    answer(|| {
        let value = store.get(&key, duration(timeout_ms))?;
        // SAFETY: the promise.
        unsafe { assign(out, &value) };
        Some(0)
    })
}

unsafe extern "C" fn add(user: *mut c_void, key: Slice, amount: i64, sum: *mut i64) -> c_int {
    // SAFETY: the promise.
    let (store, key) = unsafe { (store(user), text(key)) };
    answer(|| {
        let new = store.add(&key, amount)?;
        // SAFETY: the promise.
        unsafe { *sum = new };
        Some(0)
    })
}

unsafe extern "C" fn check(user: *mut c_void, keys: *const Slice, count: usize) -> c_int {
    // SAFETY: the promise.
    let (store, keys) = unsafe { (store(user), texts(keys, count)) };
    answer(|| store.check(&keys).map(c_int::from))
}

unsafe extern "C" fn wait(user: *mut c_void, keys: *const Slice, count: usize, timeout_ms: i64) -> c_int {
    // SAFETY: the promise.
    let (store, keys) = unsafe { (store(user), texts(keys, count)) };
    answer(|| store.wait(&keys, duration(timeout_ms)).map(|()| 0))
}

unsafe extern "C" fn compare_set(
    user: *mut c_void,
    key: Slice,
    expected: Slice,
    desired: Slice,
    out: *mut c_void,
) -> c_int {
    // SAFETY: the promise.
    let (store, key, expected, desired) = unsafe { (store(user), text(key), bytes(expected), bytes(desired)) };
    answer(|| {
        let value = store.compare_set(&key, expected, desired)?;
        // SAFETY: the promise.
        unsafe { assign(out, &value) };
        Some(0)
    })
}

unsafe extern "C" fn remove(user: *mut c_void, key: Slice) -> c_int {
    // SAFETY: the promise.
    let (store, key) = unsafe { (store(user), text(key)) };
    answer(|| store.delete(&key).map(c_int::from))
}

unsafe extern "C" fn drop_user(user: *mut c_void) {
    // SAFETY: C++ calls this once, from the store's destructor, for the box that `Calls::of` leaked.
    let user = unsafe { Box::from_raw(user.cast::<User>()) };
    // Dropping a store of the caller's may panic; the panic ends here.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(user)));
}
