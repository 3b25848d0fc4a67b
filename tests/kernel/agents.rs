//! Family `agents`.
use agent_monitor_tests::harness::case::Case;
pub(crate) const CASES: &[Case] = &[];
