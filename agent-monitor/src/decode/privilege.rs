//! Privilege family.

use agent_monitor_ebpf::event::{PRIV_TEXT, PrivBody};

use super::file::Place;
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
    /// Place named by text, with where the text starts from (level partial).
    pub place: Option<Place>,
    /// First path or text.
    pub a: Option<Name>,
    /// Second path or text.
    pub b: Option<Name>,
}

pub(super) fn decode(rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: PrivBody = fixed(rest)?;
    let (place, a, b) = if body.how & PRIV_TEXT == 0 {
        let a = tail.name(body.a, body.dev, "a")?;
        (None, a, tail.name(body.b, body.dev, "b")?)
    } else {
        let base = tail.path(body.a, body.dev, "a")?;
        let (target, kind) = tail.two_texts(body.b, "b")?;
        (target.map(|text| Place::Text { base, text }), None, kind.map(Name::Text))
    };
    Ok(Body::Priv(Box::new(PrivFacts {
        op: body.op,
        args: body.args,
        target: (body.target_tgid != 0)
            .then_some(TaskKey { tgid: body.target_tgid, start: body.target_start }),
        target_agent: body.target_agent,
        place,
        a,
        b,
    })))
}
