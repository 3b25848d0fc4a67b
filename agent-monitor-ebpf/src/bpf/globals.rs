//! Constants that the daemon patches before loading; the verifier sees them as known values and drops dead branches.

use agent_monitor_ebpf::fields::ABSENT;
use aya_ebpf::Global;

macro_rules! offsets {
    ($($symbol:ident: $owner:literal [$($path:literal),+] $without:literal;)*) => {
        $(
            #[doc = concat!("Offset in `struct ", $owner, "`.")]
            #[unsafe(no_mangle)]
            pub(crate) static $symbol: Global<u32> = Global::new(ABSENT);
        )*
    };
}
agent_monitor_ebpf::for_each_field!(offsets);

/// `--unattributed` as `UNATTRIBUTED_*`.
#[unsafe(no_mangle)]
pub(crate) static UNATTRIBUTED: Global<u32> = Global::new(1);

/// Number of this program set, compared with `Runtime::program_set` before telling anything.
#[unsafe(no_mangle)]
pub(crate) static PROGRAM_SET: Global<u32> = Global::new(0);

/// Ring fill in bytes from which a record wakes the reader at once.
#[unsafe(no_mangle)]
pub(crate) static WAKE_BYTES: Global<u32> = Global::new(1 << 20);
