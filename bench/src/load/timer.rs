//! Milliseconds from the kernel's timer: tokio's own are late by up to one.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::Ticks;

/// One millisecond.
const PERIOD: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// A timer that runs.
pub(crate) struct Timer {
    began: Instant,
    descriptor: AsyncFd<OwnedFd>,
}

impl Timer {
    pub(crate) fn start() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = Itimerspec { it_interval: PERIOD, it_value: PERIOD };
        let began = Instant::now();
        rustix::time::timerfd_settime(&descriptor, TimerfdTimerFlags::empty(), &period)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that change their descriptor: this one does not"
        )]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Self { began, descriptor })
    }
}

impl Ticks for Timer {
    fn began(&self) -> Instant {
        self.began
    }

    async fn next(&mut self) -> anyhow::Result<u64> {
        loop {
            let mut passed = [0; 8];
            let mut ready = self.descriptor.readable().await?;
            // Would block: another look at the descriptor had what this was woken for.
            if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut passed)?)) {
                read?;
                return Ok(u64::from_ne_bytes(passed));
            }
        }
    }
}
