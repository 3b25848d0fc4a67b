//! Times that must hold across clock changes and reboots: the boot clock within a boot, what was left across one.

use std::time::Duration;

use crate::model::Time;

/// This moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: Time,
    /// Nanoseconds since boot, suspend included.
    pub boot: u64,
}

/// The end of something. Within a boot only the boot clock counts, so that setting the wall clock changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Nanoseconds since boot.
    pub boot: u64,
    /// What the wall clock was to show then, when the end was set.
    pub wall: Time,
}

/// Nanoseconds of a duration, at most all there are.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn later(time: Time, by: u64) -> Time {
    Time::from_unix_nanos(time.unix_nanos().saturating_add(i128::from(by)))
}

impl Deadline {
    /// The end of a span that begins now.
    #[must_use]
    pub fn after(now: Now, span: Duration) -> Self {
        let span = nanos(span);
        Self { boot: now.boot.saturating_add(span), wall: later(now.wall, span) }
    }

    /// Whether it has come.
    #[must_use]
    pub fn over(self, now: Now) -> bool {
        now.boot >= self.boot
    }

    /// What is left.
    #[must_use]
    pub fn left(self, now: Now) -> Duration {
        Duration::from_nanos(self.boot.saturating_sub(now.boot))
    }

    /// The same end in another boot. `seen` is when the daemon was last alive in the old one.
    ///
    /// Never later than either clock allows: what was left when last seen, less what the wall clock says has passed since
    /// (at least the time since boot), and no more than the wall clock leaves. A wall clock that went backwards over the
    /// reboot proves nothing, and the end has come.
    #[must_use]
    pub fn rebased(self, seen: Now, now: Now) -> Self {
        let passed = now.wall.unix_nanos() - seen.wall.unix_nanos();
        let by_wall = self.wall.unix_nanos() - now.wall.unix_nanos();
        let left = match u64::try_from(passed) {
            Ok(passed) => {
                let by_boot = self.boot.saturating_sub(seen.boot).saturating_sub(passed.max(now.boot));
                by_boot.min(u64::try_from(by_wall.max(0)).unwrap_or(u64::MAX))
            }
            Err(_backwards) => 0,
        };
        Self { boot: now.boot.saturating_add(left), wall: later(now.wall, left) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(wall: u64, boot: u64) -> Now {
        Now { wall: Time::from_unix_nanos(i128::from(wall * SECOND)), boot: boot * SECOND }
    }

    #[test]
    fn a_reboot_shortens_and_a_clock_that_went_back_ends() {
        let end = Deadline::after(at(1000, 100), Duration::from_secs(600));
        // Seen 60 s later; the new boot is 120 s after that and 20 s old.
        let rebased = end.rebased(at(1060, 160), at(1180, 20));
        assert_eq!(rebased.left(at(1180, 20)), Duration::from_secs(420));
        assert!(end.rebased(at(1060, 160), at(1059, 20)).over(at(1059, 20)));
        // The wall clock says that hardly any time has passed; the new boot alone is longer.
        let rebased = end.rebased(at(1060, 160), at(1061, 500));
        assert_eq!(rebased.left(at(1061, 500)), Duration::from_secs(40));
    }

    #[test]
    fn an_end_comes_at_its_nanosecond_and_leaves_nothing() {
        let end = Deadline::after(at(1000, 100), Duration::from_secs(1));
        let just = Now { boot: end.boot - 1, ..at(5000, 0) };
        assert!(!end.over(just) && end.over(Now { boot: end.boot, ..just }));
        assert_eq!((end.left(just), end.left(at(0, 200))), (Duration::from_nanos(1), Duration::ZERO));
        assert_eq!(end.wall, at(1001, 0).wall);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert_eq!(Deadline::after(at(1, 100), Duration::MAX).boot, u64::MAX, "it does not wrap");
    }

    #[test]
    fn each_clock_bounds_by_itself() {
        let end = Deadline::after(at(1000, 100), Duration::from_secs(600));
        // The boot clock leaves 540 s and the wall clock, which was set forward between, only 50 s.
        let seen = Now { wall: at(1540, 0).wall, boot: 160 * SECOND };
        let now = at(1550, 5);
        assert_eq!(end.rebased(seen, now).left(now), Duration::from_secs(50));
        assert_eq!(end.rebased(seen, now).wall, at(1600, 0).wall);
        // Past the end by the wall clock alone.
        assert!(end.rebased(seen, at(1601, 5)).over(at(1601, 5)));
        // Past the end by the boot clock alone: seen 1 s before it, gone for 2 s.
        let seen = at(1010, 699);
        assert!(end.rebased(seen, at(1012, 1)).over(at(1012, 1)));
        // No time at all has passed: the wall clock has not gone back.
        let seen = at(1060, 160);
        assert_eq!(end.rebased(seen, at(1060, 0)).left(at(1060, 0)), Duration::from_secs(540));
    }

    proptest! {
        #[test]
        fn nothing_becomes_wider(
            wall in 0u64..1 << 32, boot in 0u64..1 << 20, span in 0u64..1 << 20,
            seen in 0u64..1 << 20, step in 0u64..1 << 21, fresh in 0u64..1 << 20,
        ) {
            let end = Deadline::after(at(wall, boot), Duration::from_secs(span));
            let last = at(wall + seen, boot + seen);
            let now = Now { wall: Time::from_unix_nanos(i128::from((wall + step) * SECOND)), boot: fresh * SECOND };
            let left = end.rebased(last, now).left(now);
            prop_assert!(left <= end.left(last));
            prop_assert!(left <= Duration::from_secs(span));
        }
    }
}
