//! Seeded `getrandom` and virtual `clock_gettime`: whatever draws chance or reads a clock sees the seed's.
//!
//! The symbols stand before libc's in the whole binary (std, rand, uuid, chrono, h2, hyper), so they live in this binary and
//! in no library. Each thread has its own; one that was not seeded gets the kernel's answers, so the parent of the simulations
//! still measures real time. Failure: none; a call that the kernel would refuse is refused by the kernel.

#![allow(
    unsafe_code,
    reason = "libc's functions are replaced by functions of the same names and contracts"
)]

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Virtual wall time at the start of every simulation: 2026-01-01, so that code sees a plausible date.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Virtual monotonic time at the start, far enough from zero to subtract from.
const STARTED: Duration = Duration::from_secs(1_000);

/// From now on the chance of this thread comes from `seed`.
pub(crate) fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// From now on the clocks of this thread stand at `elapsed`.
pub(crate) fn advance_to(elapsed: Duration) {
    NOW.set(Some(elapsed));
}

/// SplitMix64: one step, one word.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Fills `len` bytes at `buffer` from the thread's seed.
///
/// # Safety
/// As libc's: `buffer` is valid for writes of `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize {
    let Some(mut state) = STATE.get() else {
        // SAFETY: the arguments are handed on as they came, to the call that they were made for.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as isize };
    };
    let mut filled = 0;
    while filled < len {
        let word = next(&mut state).to_ne_bytes();
        let count = word.len().min(len - filled);
        // SAFETY: the caller owns `len` bytes at `buffer`, and `filled + count <= len`; a word on the stack does not
        // overlap with them.
        unsafe { std::ptr::copy_nonoverlapping(word.as_ptr(), buffer.add(filled), count) };
        filled += count;
    }
    STATE.set(Some(state));
    isize::try_from(len).unwrap_or(isize::MAX)
}

/// Tells the virtual time of the thread.
///
/// # Safety
/// As libc's: `time` is valid for the write of one `timespec`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let Some(elapsed) = NOW.get() else {
        // SAFETY: the arguments are handed on as they came, to the call that they were made for.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int };
    };
    let is_wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    let now = elapsed + if is_wall { EPOCH } else { STARTED };
    let value = libc::timespec {
        tv_sec: now.as_secs() as libc::time_t,
        tv_nsec: now.subsec_nanos().into(),
    };
    // SAFETY: the caller promises that one `timespec` may be written there.
    unsafe { time.write(value) };
    0
}
