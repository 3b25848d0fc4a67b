//! Scopes of the identities that no record gives: known programs without a record, and what people made of them.

use agent_monitor_ebpf::people::LIFE_RETIRED;
use agent_monitor_ebpf::task::SHADOW;

use super::place::Tree;
use super::{Compiled, Compiler, Places, Protected, place};
use crate::attribute::identity::{ALLOWED, ALLOWED_ID, REFUSED, REFUSED_ID, SHADOW_ID};
use crate::config::ShadowAct;
use crate::registry::Located;
use crate::registry::source::Position;
use crate::scope::{Scope, Verdict};

/// What a program must be able to do before it does anything of its own.
const TO_START: &str = "linux-runtime";

impl Compiled {
    /// Adds them as the policy asks: what is held may start, what is denied may do nothing, what is to be ended ends at its
    /// exec, before the image runs. What a person has let go on is recorded, and kept from the monitor's own places as
    /// everything is.
    pub fn add_shadows(&mut self, act: ShadowAct, host: &mut dyn Places, protected: &Protected) {
        let of = |default| Scope { declared: true, default, unknown: Verdict::Deny, ..Scope::default() };
        let own = match act {
            ShadowAct::Hold => {
                let base = vec![Located::new(TO_START.to_owned(), Position::FILE)];
                Scope { base, ..of(Verdict::Hold) }
            }
            ShadowAct::Deny | ShadowAct::Kill => of(Verdict::Deny),
            ShadowAct::Off | ShadowAct::Audit => return,
        };
        let scopes = [
            (SHADOW_ID, SHADOW, own),
            (ALLOWED_ID, ALLOWED, Scope::default()),
            (REFUSED_ID, REFUSED, of(Verdict::Deny)),
        ];
        let mounts = host.mounts();
        let places = place::locate_protected(protected, host);
        for (id, index, scope) in scopes {
            let tree = Tree::new(&mounts, &places);
            let mut compiler = Compiler::new(id, &mut *host, &mut self.notes, tree, Vec::new());
            compiler.scope(&scope);
            let mut image = compiler.finish(&scope, true);
            if index == SHADOW && act == ShadowAct::Kill {
                image.policy.life = LIFE_RETIRED;
            }
            self.image.agents.insert(index, image);
        }
    }
}
