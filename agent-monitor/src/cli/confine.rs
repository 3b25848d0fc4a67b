//! Landlock for a command that is about to be run, by a plan.

use std::path::Path;

use agent_monitor::scope::landlock::{Found, Need, Plan};
use anyhow::Context as _;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};

/// What this kernel's Landlock can do, and what it cannot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ability {
    abi: ABI,
    /// What is missing, in words.
    pub(super) missing: Option<&'static str>,
}

/// Tries what this kernel takes; `None` where it has no Landlock.
pub(super) fn ability() -> Option<Ability> {
    let levels = [
        (ABI::V3, None),
        (ABI::V2, Some("files can be cut short (Landlock ABI 2)")),
        (
            ABI::V1,
            Some("files can be cut short, and nothing can be moved between directories (Landlock ABI 1)"),
        ),
    ];
    let works = |abi: ABI| {
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        rules.handle_access(AccessFs::from_all(abi)).and_then(Ruleset::create).is_ok()
    };
    levels.into_iter().find(|(abi, _)| works(*abi)).map(|(abi, missing)| Ability { abi, missing })
}

/// What stands at a path now.
pub(super) fn look(path: &str) -> Found {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Found::Directory,
        Ok(_) => Found::File,
        Err(_) => Found::Nothing,
    }
}

/// Confines this process and all it becomes. There is no way back.
pub(super) fn confine(plan: &Plan, ability: Ability) -> anyhow::Result<()> {
    let failed = "cannot set up Landlock for the command";
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut rules =
        rules.handle_access(AccessFs::from_all(ability.abi)).context(failed)?.create().context(failed)?;
    for (path, needs) in &plan.allow {
        let opened = PathFd::new(Path::new(path)).with_context(|| format!("{failed}: {path} is gone"))?;
        let whole = look(path) == Found::Directory;
        let access = needs.iter().fold(BitFlags::EMPTY, |all, need| all | rights(*need, ability.abi));
        let access = if whole { access } else { access & AccessFs::from_file(ability.abi) };
        if !access.is_empty() {
            rules = rules
                .add_rule(PathBeneath::new(opened, access))
                .with_context(|| format!("{failed}: {path}"))?;
        }
    }
    let status = rules.restrict_self().context(failed)?;
    anyhow::ensure!(
        status.ruleset == RulesetStatus::FullyEnforced,
        "{failed}: the kernel took only a part of it"
    );
    Ok(())
}

fn rights(need: Need, abi: ABI) -> BitFlags<AccessFs> {
    let all = AccessFs::from_all(abi);
    let rights = match need {
        Need::Read => AccessFs::ReadFile | AccessFs::ReadDir,
        Need::List => AccessFs::ReadDir.into(),
        Need::Write => AccessFs::WriteFile | AccessFs::Truncate,
        Need::Create => {
            AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::MakeSym
                | AccessFs::MakeFifo
                | AccessFs::MakeSock
                | AccessFs::MakeChar
                | AccessFs::MakeBlock
                | AccessFs::Refer
        }
        Need::Delete => AccessFs::RemoveFile | AccessFs::RemoveDir | AccessFs::Refer,
        Need::Run => AccessFs::Execute.into(),
    };
    rights & all
}
