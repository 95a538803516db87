//! The serving gate: what readers ask before and after they read, without going through the replica.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::limits::TICK_STALE_MS;

/// Whether this node may serve, and its node time; written by the replica, read by every request.
///
/// A request checks the gate *after* it took its value: a process that was stopped in between must
/// not answer with what it had found before.
#[derive(Debug, Default)]
pub struct Gate {
    is_open: AtomicBool,
    last_tick_boot_ms: AtomicU64,
    offset_ms: AtomicI64,
}

impl Gate {
    /// Node time at `boot_ms` when this node may serve; `None` when it must hear from its peers
    /// first (or has not started, or is stopping).
    pub fn check(&self, boot_ms: u64) -> Option<u64> {
        let is_fresh =
            boot_ms.saturating_sub(self.last_tick_boot_ms.load(Ordering::Acquire)) <= TICK_STALE_MS;
        (is_fresh && self.is_open.load(Ordering::Acquire)).then(|| self.now_ms(boot_ms))
    }

    /// Node time at `boot_ms`, served or not.
    pub fn now_ms(&self, boot_ms: u64) -> u64 {
        boot_ms.saturating_add_signed(self.offset_ms.load(Ordering::Acquire))
    }

    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// After [`Gate::set_open`], so that a stale tick is never followed by an open gate.
    pub(crate) fn tick(&self, boot_ms: u64, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Release);
        self.last_tick_boot_ms.store(boot_ms, Ordering::Release);
    }
}
