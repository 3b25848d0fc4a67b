//! What was lost: counted by kind, agent and reason, told as gap records. Pure.

use std::collections::BTreeMap;

use agent_monitor_ebpf::header::Kind as RawKind;
use agent_monitor_ebpf::loss::{LossKey, LossReason, LossValue};

use crate::attribute::Agents;
use crate::clock::Clock;
use crate::decode::DecodeError;
use crate::model::{Event, Gap, Kind, Time, kinds};

/// Counts as they were told last, and what has not been told yet.
#[derive(Debug, Default)]
pub struct LossBook {
    told: BTreeMap<(u32, u16, u16), LossValue>,
    overflow_told: u64,
    undecoded: BTreeMap<(u16, &'static str), LossValue>,
    last_poll: u64,
}

impl LossBook {
    /// Starts from what another daemon has told already.
    pub fn resume(&mut self, losses: &[(LossKey, LossValue)], overflow: u64) {
        // Programs are loaded anew by each daemon: what they missed is counted from nothing.
        let anew = |key: &LossKey| key.reason == LossReason::NotRun as u16;
        let told = losses.iter().filter(|(key, _)| !anew(key));
        self.told = told.map(|(key, value)| (order(key), *value)).collect();
        self.overflow_told = overflow;
    }

    /// Notes a record that could not be read.
    pub fn undecoded(&mut self, kind: Option<RawKind>, error: DecodeError, ktime: u64) {
        let key = (kind.map_or(0, |kind| kind as u16), error.as_str());
        let value = self.undecoded.entry(key).or_insert(LossValue { count: 0, first: ktime, last: ktime });
        value.count += 1;
        value.last = ktime;
    }

    /// Gap records for what the kernel's table and this book gained since the last call.
    pub fn poll(
        &mut self,
        losses: &[(LossKey, LossValue)],
        overflow: u64,
        now: u64,
        agents: &Agents,
        clock: &Clock,
    ) -> Vec<Event> {
        let since = std::mem::replace(&mut self.last_poll, now);
        let mut gaps = Vec::new();
        for (key, value) in losses {
            let before = self.told.insert(order(key), *value).map_or(0, |before| before.count);
            // A count that went back is of a table that was made anew.
            let count = if value.count < before { value.count } else { value.count - before };
            if count == 0 {
                continue;
            }
            let reason = LossReason::from_u16(key.reason);
            let gap = Gap {
                reason: reason.map_or_else(|| format!("reason_{}", key.reason), |r| r.as_str().to_owned()),
                kind: lost_name(key.kind),
                agent: (key.agent != 0).then(|| agents.name(key.agent)),
                count,
                // The table keeps the first of all; of a later poll's share only the poll before is known.
                first: clock.wall(if before == 0 { value.first } else { since.min(value.last) }),
                last: clock.wall(value.last),
            };
            gaps.push(Event::gap(clock.wall(now), reason.map_or(Kind::GapLookup, gap_kind), gap));
        }
        let uncounted = overflow.saturating_sub(self.overflow_told);
        if uncounted > 0 {
            self.overflow_told = overflow;
            let (first, last) = (clock.wall(since), clock.wall(now));
            gaps.push(gap(Kind::GapMap, "loss_table_full", uncounted, first, last));
        }
        for ((kind, reason), value) in std::mem::take(&mut self.undecoded) {
            let (first, last) = (clock.wall(value.first), clock.wall(value.last));
            let mut event = gap(Kind::GapDecode, reason, value.count, first, last);
            if let Some(gap) = &mut event.gap {
                gap.kind = lost_name(kind);
            }
            gaps.push(event);
        }
        gaps
    }
}

fn order(key: &LossKey) -> (u32, u16, u16) {
    (key.agent, key.kind, key.reason)
}

/// What was lost, by the number of its record: a kind of event, or the name of a record that is no event.
fn lost_name(raw: u16) -> Option<String> {
    RawKind::from_u16(raw).map(|raw| kinds::of_record(raw).name().to_owned())
}

/// A gap of any kind and agent.
#[must_use]
pub fn gap(kind: Kind, reason: &str, count: u64, first: Time, last: Time) -> Event {
    Event::gap(last, kind, Gap { reason: reason.to_owned(), kind: None, agent: None, count, first, last })
}

/// The kind of gap of each reason. Total: a new reason does not compile without one.
#[deny(clippy::wildcard_enum_match_arm)]
fn gap_kind(reason: LossReason) -> Kind {
    match reason {
        LossReason::RingFull => Kind::GapRing,
        LossReason::Scratch | LossReason::ReadFailed | LossReason::PlaceUnknown => Kind::GapCopy,
        LossReason::ProcsFull
        | LossReason::FlowFull
        | LossReason::CgroupsFull
        | LossReason::TagFailed
        | LossReason::PolicyMissing => Kind::GapMap,
        LossReason::CompatSyscall | LossReason::IoUringUnseen | LossReason::NotRun => Kind::GapHook,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    fn loss(agent: u32, count: u64, last: u64) -> (LossKey, LossValue) {
        let key = LossKey { agent, kind: RawKind::FileOpen as u16, reason: LossReason::RingFull as u16 };
        (key, LossValue { count, first: 5, last })
    }

    fn counts(events: &[Event]) -> Vec<(String, u64)> {
        let gap = |event: &Event| event.gap.as_ref().map(|gap| (gap.reason.clone(), gap.count));
        events.iter().filter_map(gap).collect()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let (mut book, clock) = (LossBook::default(), Clock::fixed(0));
        let mut agents = Agents::default();
        agents.register([("a", Mode::Observe)]);
        let events = book.poll(&[loss(1, 3, 9), loss(0, 1, 6)], 0, 10, &agents, &clock);
        assert_eq!(counts(&events), [("ring_full".to_owned(), 3), ("ring_full".to_owned(), 1)]);
        let first = events[0].gap.clone().unwrap();
        assert_eq!(
            (events[0].kind, first.agent.as_deref(), first.kind.as_deref()),
            (Kind::GapRing, Some("a"), Some("file.open"))
        );
        assert_eq!((first.first, first.last), (clock.wall(5), clock.wall(9)));
        assert!(book.poll(&[loss(1, 3, 9)], 0, 20, &agents, &clock).is_empty());
        let events = book.poll(&[loss(1, 8, 25)], 2, 30, &agents, &clock);
        assert_eq!(counts(&events), [("ring_full".to_owned(), 5), ("loss_table_full".to_owned(), 2)]);
        assert_eq!(events[0].gap.as_ref().unwrap().first, clock.wall(20));
        assert_eq!(
            counts(&book.poll(&[loss(1, 2, 41)], 2, 50, &agents, &clock)),
            [("ring_full".to_owned(), 2)],
            "a new table"
        );
    }

    /// Each reason for each record: the name is that of the record, and what is no event is not reported as one.
    #[test]
    fn each_loss_has_the_name_of_what_was_lost() {
        let clock = Clock::fixed(0);
        for raw in RawKind::ALL {
            let own = match raw {
                RawKind::NetAnswer => Some("record.dns_answer"),
                RawKind::NetHello => Some("record.tls_client_hello"),
                RawKind::NetPeer => Some("record.peer"),
                RawKind::Canary => Some("record.canary"),
                RawKind::ArgChunk => Some("record.arguments"),
                RawKind::Bound => Some("agent.bound"),
                RawKind::NetConnect => Some("network.connect"),
                _ => None,
            };
            for reason in LossReason::ALL {
                let key = LossKey { agent: 0, kind: *raw as u16, reason: *reason as u16 };
                let lost = [(key, LossValue { count: 2, first: 1, last: 2 })];
                let events = LossBook::default().poll(&lost, 0, 9, &Agents::default(), &clock);
                let gap = events[0].gap.clone().unwrap();
                assert_eq!(gap.reason, reason.as_str());
                let name = gap.kind.unwrap();
                assert!(own.is_none_or(|own| own == name), "{raw:?} is reported as {name}");
                let kind = name.parse::<Kind>().ok();
                assert_eq!(kind.and_then(|kind| kind.row().raw), kind.map(|_| *raw), "{raw:?}: {name}");
            }
            let mut book = LossBook::default();
            book.undecoded(Some(*raw), DecodeError::Piece("x"), 3);
            let events = book.poll(&[], 0, 9, &Agents::default(), &clock);
            let name = events[0].gap.clone().unwrap().kind;
            assert!(own.is_none_or(|own| name.as_deref() == Some(own)), "{raw:?} unread is {name:?}");
        }
        // A record of a newer program set has no name, and is counted all the same.
        let key = LossKey { agent: 0, kind: 999, reason: 999 };
        let lost = [(key, LossValue { count: 2, first: 1, last: 2 })];
        let gap = LossBook::default().poll(&lost, 0, 9, &Agents::default(), &clock)[0].gap.clone().unwrap();
        assert_eq!((gap.kind, gap.reason.as_str(), gap.count), (None, "reason_999", 2));
    }

    #[test]
    fn bad_records_are_counted() {
        let (mut book, clock) = (LossBook::default(), Clock::fixed(0));
        for ktime in [3, 4] {
            book.undecoded(Some(RawKind::Exec), DecodeError::Piece("exe"), ktime);
        }
        let events = book.poll(&[], 0, 9, &Agents::default(), &clock);
        let gap = events[0].gap.clone().unwrap();
        assert_eq!((events[0].kind, gap.reason.as_str(), gap.count), (Kind::GapDecode, "decode_piece", 2));
        assert_eq!(gap.kind.as_deref(), Some("process.exec"));
        assert!(book.poll(&[], 0, 10, &Agents::default(), &clock).is_empty());
    }

    #[test]
    fn what_another_daemon_told_is_not_told_again() {
        let mut book = LossBook::default();
        book.resume(&[loss(1, 3, 9)], 4);
        assert!(book.poll(&[loss(1, 3, 9)], 4, 10, &Agents::default(), &Clock::fixed(0)).is_empty());
    }

    #[test]
    fn runs_left_out_are_counted_from_nothing_by_each_daemon() {
        let mut left_out = loss(0, 3, 9);
        left_out.0.reason = LossReason::NotRun as u16;
        let mut book = LossBook::default();
        book.resume(&[left_out], 0);
        let events = book.poll(&[left_out], 0, 10, &Agents::default(), &Clock::fixed(0));
        assert_eq!((events[0].kind, counts(&events)), (Kind::GapHook, vec![("not_run".to_owned(), 3)]));
    }
}
