//! The kernel/user contract of agent-monitor.
#![no_std]
