//! End-to-end tests of agent-monitor.
