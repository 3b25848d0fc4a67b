//! Privilege family.

use agent_monitor_ebpf::event::PrivBody;

use super::piece::Name;
use super::{Body, DecodeError, Tail, TaskKey, fixed};

/// Which right was used, and on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivFacts {
    /// A `priv_op` value.
    pub op: u16,
    /// Meaning by `op`.
    pub args: [u64; 4],
    /// The process acted on.
    pub target: Option<TaskKey>,
    /// Agent that process is bound to, 0 for none.
    pub target_agent: u32,
    /// First path or text.
    pub a: Option<Name>,
    /// Second path or text.
    pub b: Option<Name>,
}

pub(super) fn decode(rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: PrivBody = fixed(rest)?;
    let a = tail.name(body.a, body.dev, "a")?;
    let b = tail.name(body.b, body.dev, "b")?;
    Ok(Body::Priv(Box::new(PrivFacts {
        op: body.op,
        args: body.args,
        target: (body.target_tgid != 0)
            .then_some(TaskKey { tgid: body.target_tgid, start: body.target_start }),
        target_agent: body.target_agent,
        a,
        b,
    })))
}
