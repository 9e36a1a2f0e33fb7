//! Where memory comes from: mimalloc, told to give back what is free sooner than it does by itself.
//!
//! Called by `main.rs` before anything else. A worker's memory comes in waves, a segment at a time: with mimalloc's own second of delay the
//! next wave often takes new memory while that of the last is still held. Nothing here can fail.

/// All of this program's memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3, which its bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Measured with a folder of CSV files: a fifth to a quarter less memory than with a second and about the same speed, of which no delay at all costs a sixth.
const PURGE_DELAY_MS: i64 = 10;

/// Sets what differs from mimalloc's own; MIMALLOC_PURGE_DELAY in the environment wins.
pub(crate) fn tune() {
    #[allow(unsafe_code, reason = "a setting of a C library")]
    // SAFETY: the option is one of the library's, and it may be set at any time and from any thread.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_given_back_soon() {
        #[allow(unsafe_code, reason = "a setting of a C library")]
        // SAFETY: reads a number.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(get(), 1_000, "the option is the one that it is taken for");
        tune();
        assert_eq!(get(), PURGE_DELAY_MS);
    }
}
