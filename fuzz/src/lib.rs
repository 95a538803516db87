//! What fuzzing checks of a parser besides what `mneme-parsers` does: how much memory it takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is allocated. The fuzzer's own memory is not: it is not Rust's.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is the system allocator's; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `check` and sees that it held at most `bytes` and `times` the input at once: a length that an input claims must
/// not be believed.
pub fn bounded(input: &[u8], bytes: usize, times: usize, check: fn(&[u8])) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    check(input);
    let held = MOST.load(Ordering::Relaxed) - before;
    assert!(held <= bytes + times * input.len(), "{held} bytes were held for an input of {}", input.len());
}

/// Makes a target of a check. What it may hold is 1 MiB and 512 times the input unless it says otherwise: what is parsed
/// is larger than its text, and the checks hold it several times.
#[macro_export]
macro_rules! target {
    ($check:path) => {
        $crate::target!($check, 1 << 20, 512);
    };
    ($check:path, $bytes:expr, $times:expr) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::bounded(input, $bytes, $times, $check));
    };
}
