//! The Prometheus (OpenMetrics) text of the counters. Names:
//!
//! | name | labels | |
//! |---|---|---|
//! | `agent_monitor_build_info` | `version` | always 1 |
//! | `agent_monitor_start_time_seconds` | | when the daemon started |
//! | `agent_monitor_events_total` | `kind`, `verdict` | events in the record |
//! | `agent_monitor_agent_events_total` | `agent`, `family` | the same by agent |
//! | `agent_monitor_lost_events_total` | `reason` | events that gap records say were missed |
//! | `agent_monitor_last_event_timestamp_seconds` | | time of the newest event |
//! | `agent_monitor_ring_{used,peak,capacity}_bytes` | `ring` | kernel rings |
//! | `agent_monitor_bound_processes` | `agent` | processes bound now |
//! | `agent_monitor_agents` | `state` | records `registered` and `refused` at the last load, and `stale`: the last good record is in force instead of what is on disk |
//! | `agent_monitor_reloads_total` | `outcome` | loads of the registry, `applied` or `refused` as a whole |
//! | `agent_monitor_record_{events,bytes}` | | held in memory |
//! | `agent_monitor_record_last_seq` | | `seq` of the newest event |
//! | `agent_monitor_record_evicted_total` | | events that made room |
//! | `agent_monitor_log_writing` | | 1 while the durable log is written, 0 when the disk is full or it failed |
//! | `agent_monitor_log_state` | `state` | 1 where it holds: `ok`, `recovered` (an unfinished end was cut off at this start), `set_aside` (a damaged log stands beside it until it is moved away), `not_written` |
//! | `agent_monitor_log_records` | | records in the durable log |
//! | `agent_monitor_log_lost_total` | | events that could not be written to it |
//! | `agent_monitor_log_waiting` | | events that wait to be written |
//! | `agent_monitor_log_sealed_timestamp_seconds` | | time of the last checkpoint |
//! | `agent_monitor_subscribers` | | followers now |
//! | `agent_monitor_subscriber_missed_events_total` | | what slow followers missed |
//! | `agent_monitor_control_requests_total` | `route`, `status` | calls of the control API |
//! | `agent_monitor_control_refused_total` | `reason` | callers turned away |
//!
//! Labels are bounded: at most 512 agents by name, then `_other`; routes are patterns.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Counts, Health};
use crate::log::condition::Condition;
use crate::record::Extent;

/// Media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text, rows in a fixed order.
///
/// # Errors
/// Only if formatting itself fails.
pub fn render(health: &Health, extent: Extent) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("agent_monitor");
    registry.register_collector(Box::new(Snapshot { counts: health.counts(), extent }));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot {
    counts: Counts,
    extent: Extent,
}

/// Labels of one row.
type Labels<'a> = Vec<(&'a str, String)>;

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        gauge(
            to,
            "build_info",
            "Version of the daemon",
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
        )?;
        self.encode_events(to)?;
        self.encode_losses(to)?;
        self.encode_agents(to)?;
        self.encode_record(to)?;
        self.encode_log(to)?;
        self.encode_control(to)
    }
}

impl Snapshot {
    fn encode_events(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Counts { by_kind, by_agent, last_event, started, .. } = &self.counts;
        gauge(to, "start_time_seconds", "When the daemon started", moment(*started))?;
        gauge(to, "last_event_timestamp_seconds", "Time of the newest event", moment(*last_event))?;
        let rows = by_kind.iter().map(|((kind, verdict), count)| {
            let verdict = verdict.map_or("", |verdict| verdict.as_str());
            (vec![("kind", kind.as_str().to_owned()), ("verdict", verdict.to_owned())], *count)
        });
        counter(to, "events", "Events in the record", rows.collect())?;
        let rows = by_agent.iter().map(|((agent, family), count)| {
            (vec![("agent", agent.clone()), ("family", family.as_str().to_owned())], *count)
        });
        counter(to, "agent_events", "Events in the record by agent", rows.collect())
    }

    fn encode_losses(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Counts { losses, rings, .. } = &self.counts;
        let rows = losses.iter().map(|(reason, count)| (vec![("reason", reason.clone())], *count));
        counter(to, "lost_events", "Events that gap records say were missed", rows.collect())?;
        let sizes = [
            ("ring_used_bytes", "Bytes waiting in a kernel ring"),
            ("ring_peak_bytes", "Most bytes seen waiting in a kernel ring"),
            ("ring_capacity_bytes", "Size of a kernel ring"),
        ];
        for (at, (name, help)) in sizes.into_iter().enumerate() {
            let rows = rings.iter().map(|(ring, size)| {
                let value = [size.used_bytes, size.peak_bytes, size.capacity_bytes].get(at).copied();
                (vec![("ring", ring.clone())], float(value.unwrap_or(0)))
            });
            gauge(to, name, help, rows.collect())?;
        }
        Ok(())
    }

    fn encode_agents(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Counts {
            bound, agents_registered, agents_refused, agents_stale, reloads, reloads_refused, ..
        } = &self.counts;
        let rows = bound.iter().map(|(agent, count)| (vec![("agent", agent.clone())], float(*count)));
        gauge(to, "bound_processes", "Processes bound now", rows.collect())?;
        let rows =
            [("registered", *agents_registered), ("refused", *agents_refused), ("stale", *agents_stale)];
        let rows = rows.map(|(state, count)| (vec![("state", state.to_owned())], float(count)));
        gauge(to, "agents", "Records at the last load of the registry", rows.into())?;
        let rows = [("applied", *reloads), ("refused", *reloads_refused)];
        let rows = rows.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
        counter(to, "reloads", "Loads of the registry", rows.into())
    }

    fn encode_record(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Extent { events, bytes, newest_seq, evicted, subscribers, .. } = self.extent;
        gauge(to, "record_events", "Events held in memory", vec![(Vec::new(), float(events))])?;
        gauge(to, "record_bytes", "Bytes held in memory", vec![(Vec::new(), float(bytes))])?;
        gauge(to, "record_last_seq", "seq of the newest event", vec![(Vec::new(), float(newest_seq))])?;
        counter(to, "record_evicted", "Events that made room", vec![(Vec::new(), evicted)])?;
        gauge(to, "subscribers", "Readers that follow the stream", vec![(Vec::new(), float(subscribers))])?;
        let missed = vec![(Vec::new(), self.counts.subscriber_missed)];
        counter(to, "subscriber_missed_events", "Events that slow readers missed", missed)
    }

    fn encode_log(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(log) = &self.counts.log else { return Ok(()) };
        let one = |value: f64| vec![(Vec::new(), value)];
        let writing = if log.state == "writing" { 1.0 } else { 0.0 };
        gauge(to, "log_writing", "The durable log is written", one(writing))?;
        let rows = Condition::ALL.map(|state| {
            (vec![("state", state.as_str().to_owned())], if log.has(state) { 1.0 } else { 0.0 })
        });
        let help =
            "State of the durable log: ok, recovered after a crash, a damaged log set aside, not written";
        gauge(to, "log_state", help, rows.into())?;
        gauge(to, "log_records", "Records in the durable log", one(float(log.records)))?;
        gauge(to, "log_waiting", "Events that wait to be written", one(float(log.waiting)))?;
        gauge(to, "log_sealed_timestamp_seconds", "Time of the last checkpoint", moment(log.sealed_at))?;
        counter(to, "log_lost", "Events that could not be written to the log", vec![(Vec::new(), log.lost)])
    }

    fn encode_control(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Counts { requests, refusals, .. } = &self.counts;
        let rows = requests.iter().map(|((route, status), count)| {
            (vec![("route", route.clone()), ("status", status.to_string())], *count)
        });
        counter(to, "control_requests", "Calls of the control API", rows.collect())?;
        let rows = refusals.iter().map(|(reason, count)| (vec![("reason", (*reason).to_owned())], *count));
        counter(to, "control_refused", "Callers turned away by the control API", rows.collect())
    }
}

fn moment(time: Option<crate::model::Time>) -> Vec<(Labels<'static>, f64)> {
    time.map(|time| (Vec::new(), time.unix_seconds())).into_iter().collect()
}

/// Exact up to 2^53.
fn float(value: u64) -> f64 {
    value as f64
}

fn counter(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: Vec<(Labels<'_>, u64)>,
) -> fmt::Result {
    rows_of(to, name, help, MetricType::Counter, rows.into_iter().map(|(l, v)| (l, ConstCounter::new(v))))
}

fn gauge(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: Vec<(Labels<'_>, f64)>,
) -> fmt::Result {
    rows_of(to, name, help, MetricType::Gauge, rows.into_iter().map(|(l, v)| (l, ConstGauge::new(v))))
}

fn rows_of<'a, M: EncodeMetric>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    rows: impl Iterator<Item = (Labels<'a>, M)>,
) -> fmt::Result {
    let mut metric: MetricEncoder<'_> = to.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            return value.encode(metric);
        }
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
