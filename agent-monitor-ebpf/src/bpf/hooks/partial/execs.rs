//! Programs at level partial: what the scope says of an image is told with its exec, and `kill` ends the process before
//! the image's first instruction. Attached before the program that tells the exec, so that it runs before it.

use agent_monitor_ebpf::{
    Kind, Source,
    header::{FLAG_ENFORCED, FLAG_JUDGED},
    policy::{POLICY_ENFORCE, ask, kills, permits, rule_of, verdict_of},
};
use aya_ebpf::{helpers::generated::bpf_send_signal, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::bpf::{
    emit::begin,
    globals as g,
    judge::{SIGKILL, enforced, place_late},
    read::{Ptr, pointer},
    tag::actor,
    walk::walk,
};

/// `sched_process_exec(task, old_pid, bprm)`: fs/exec.c. The image only: a script is not shown here.
#[btf_tracepoint(function = "sched_process_exec")]
fn partial_exec(ctx: BtfTracePointContext) -> i32 {
    let bprm: Ptr = ctx.arg(2);
    let Ok(actor) = actor(Kind::Exec) else { return 0 };
    let Some(policy) = actor.policy else { return 0 };
    begin(&actor, Kind::Exec, Source::TpBtf);
    let dentry = pointer(pointer(bprm, &g::O_BPRM_FILE), &g::O_FILE_DENTRY);
    let walked = walk(actor.scratch, dentry, 0);
    place_late(&actor, dentry, &walked, ask::EXEC);
    // SAFETY: scratch was checked for null when the actor was made.
    let found = unsafe { (&raw const (*actor.scratch).decision).read_volatile() };
    let stops = kills(found) && enforced(policy.flags, found);
    let carried = stops || (permits(found) && policy.flags & POLICY_ENFORCE != 0);
    // SAFETY: as above.
    unsafe {
        let s = actor.scratch;
        (*s).exec_verdict = u32::from(verdict_of(found));
        (*s).exec_rule = actor.generation << 16 | u32::from(rule_of(found));
        (*s).exec_flags = u32::from(FLAG_JUDGED | if carried { FLAG_ENFORCED } else { 0 });
        if stops {
            bpf_send_signal(SIGKILL);
        }
    }
    0
}
