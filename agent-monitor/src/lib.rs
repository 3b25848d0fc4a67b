//! User-space half of agent-monitor.
