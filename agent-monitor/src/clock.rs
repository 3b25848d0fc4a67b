//! The one place that reads clocks.
//!
//! Kernel events carry nanoseconds since boot (`bpf_ktime_get_boot_ns`, suspend included); people read wall
//! clock. The distance between the two is sampled here and kept until [`Clock::resample`] is called, so that
//! one stretch of events has one distance and order is never turned by a clock that is being set. Modules of
//! the pure core get times as values and must not use this.

use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::log::Moment;
use crate::model::Time;

/// Boot time and wall clock, and the distance between them.
#[derive(Debug)]
pub struct Clock {
    /// Wall clock minus boot time, nanoseconds.
    offset: AtomicI64,
}

impl Clock {
    /// Samples the clocks of this host.
    #[must_use]
    pub fn start() -> Self {
        Self { offset: AtomicI64::new(sample_offset()) }
    }

    /// A clock whose [`wall`](Self::wall) adds a fixed distance: for replay and tests.
    #[must_use]
    pub fn fixed(offset_nanos: i64) -> Self {
        Self { offset: AtomicI64::new(offset_nanos) }
    }

    /// Wall clock now.
    #[must_use]
    pub fn now(&self) -> Time {
        now()
    }

    /// Nanoseconds since boot, suspend included, as the kernel stamps events.
    #[must_use]
    pub fn boot_nanos(&self) -> u64 {
        u64::try_from(nanos(clock_gettime(ClockId::Boottime))).unwrap_or(0)
    }

    /// The wall clock of a kernel time stamp (nanoseconds since boot).
    #[must_use]
    pub fn wall(&self, boot_nanos: u64) -> Time {
        Time::from_unix_nanos(i128::from(self.offset.load(Ordering::Relaxed)) + i128::from(boot_nanos))
    }

    /// Measures the distance again, after the wall clock was set. Returns by how many nanoseconds it moved.
    pub fn resample(&self) -> i64 {
        let fresh = sample_offset();
        fresh.saturating_sub(self.offset.swap(fresh, Ordering::Relaxed))
    }
}

/// Wall clock now, for callers that hold no [`Clock`].
#[must_use]
pub fn now() -> Time {
    Time::from_unix_nanos(nanos(clock_gettime(ClockId::Realtime)))
}

/// Whether the kernel says that its clock is kept by a time source: `synchronised`, `unsynchronised` or `unknown`.
#[must_use]
pub fn synchronised() -> &'static str {
    // SAFETY: `timex` is plain data for which zeroes are valid; mode 0 only reads.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    match state {
        libc::TIME_ERROR => "unsynchronised",
        0.. => "synchronised",
        _ => "unknown",
    }
}

/// This moment on all clocks.
#[must_use]
pub fn moment() -> Moment {
    Moment {
        time: now(),
        boot_id: crate::run::state::boot_id(),
        boot_nanos: u64::try_from(nanos(clock_gettime(ClockId::Boottime))).unwrap_or(0),
    }
}

/// Best of several samples: the one whose two boot-time readings are closest together.
fn sample_offset() -> i64 {
    let best = (0..8)
        .map(|_| {
            let before = nanos(clock_gettime(ClockId::Boottime));
            let wall = nanos(clock_gettime(ClockId::Realtime));
            let after = nanos(clock_gettime(ClockId::Boottime));
            (after - before, wall - (before + after) / 2)
        })
        .min_by_key(|(width, _)| *width);
    best.and_then(|(_, offset)| i64::try_from(offset).ok()).unwrap_or(0)
}

fn nanos(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_time_becomes_wall_clock() {
        let clock = Clock::start();
        let distance = clock.wall(clock.boot_nanos()).unix_nanos() - now().unix_nanos();
        assert!(distance.abs() < 1_000_000_000, "{distance} ns off");
        assert_eq!(Clock::fixed(5).wall(7), Time::from_unix_nanos(12));
        assert!(clock.resample().abs() < 1_000_000_000);
    }
}
