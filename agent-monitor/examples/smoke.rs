use agent_monitor::kernel::{Options, bpffs, object::Kernel};
fn main() {
    let secs: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(2);
    let mut k = Kernel::load(Options {
        bpffs: "/sys/fs/bpf/am-smoke".into(),
        cgroup: bpffs::cgroup_mount(),
        unattributed: std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(2),
        ring_bytes: 8 << 20,
        force_partial: false,
    })
    .unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(1)
    });
    eprintln!("{:?} full={} over={} {:#?}", k.without_lsm(), k.is_full(), k.taken_over(), k.outcomes());
    eprintln!("{:?}", k.lost_fields());
    let t = k.tasks().unwrap();
    eprintln!("tasks {} {:?}", t.len(), t.last());
    eprintln!("{:?}", k.canary());
    let mut r = k.take_rings().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(secs);
    let mut n = std::collections::BTreeMap::<u16, u32>::new();
    while std::time::Instant::now() < end {
        r.wait(std::time::Duration::from_millis(50)).unwrap();
        r.drain(100000, &mut |_, b| {
            let kind = u16::from_le_bytes([b[0], b[1]]);
            *n.entry(kind).or_default() += 1;
            if std::env::args().nth(3).is_some() {
                let tail: String =
                    b[192..].iter().map(|c| if c.is_ascii_graphic() { *c as char } else { '.' }).collect();
                println!(
                    "{kind} pid {} len {} {tail}",
                    u32::from_le_bytes(b[40..44].try_into().unwrap()),
                    b.len()
                );
            }
        });
    }
    println!("{n:?}");
    k.detach().unwrap();
}
