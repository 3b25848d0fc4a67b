//! How an action with verdict `hold` waits.

use serde::{Deserialize, Serialize};

/// What the kernel side says of an action that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Digest of the exact action, 16 lower-case hex digits: an approval is bound to it.
    pub digest: String,
    /// `true`: the process is stopped inside the action, which goes on when it is approved. `false`: the action was
    /// refused, for it cannot be started again here; an approval lets the next try pass.
    pub held: bool,
    /// The same request once more, after a stray `SIGCONT`.
    #[serde(default)]
    pub again: bool,
}

impl Hold {
    /// The digest as a number; `None` where it is none.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        (self.digest.len() == 16).then(|| u64::from_str_radix(&self.digest, 16).ok()).flatten()
    }
}
