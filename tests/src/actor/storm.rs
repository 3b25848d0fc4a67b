//! A storm: as many forks, execs, opens and connects as are asked for, counted exactly.
//!
//! Nothing in it makes an event of the four kinds that it does not count: the program it execs is a file of a
//! hundred bytes without loader or libraries, connects are of UDP sockets (no handshake, no port shortage), and
//! every open is of one file.

use super::file::open_raw;
use super::socket::{connect, inet, make, parse};
use super::{Act, Failure, Outcome, say};
use crate::sys::{self, Arg, Forked, call, cstr};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const ACTS: &[Act] = &[Act::new(
    "storm",
    "dir=DIR [rounds=N | seconds=N] [forks=N] [opens=N] [connects=N] [files=N] [programs=N]",
    storm,
)];

/// `_exit(0)`, by hand: `xor edi, edi; mov eax, 231; syscall`.
const CODE: &[u8] = &[0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    forks: u64,
    execs: u64,
    opens: u64,
    connects: u64,
    /// `fork` or `exec` that the kernel refused; always 0 unless the machine is out of something.
    failed: u64,
}

/// What one round does, and how many rounds.
struct Plan {
    program: String,
    target: String,
    peer: Vec<u8>,
    forks: u64,
    opens: u64,
    connects: u64,
    /// Files made and removed: two events each that a storm does not count.
    files: u64,
    /// Starts of a dynamically linked program, this one; what its loader opens is not counted.
    programs: u64,
    rounds: u64,
    until: Option<Instant>,
}

fn plan(args: &[String]) -> Result<Plan, Failure> {
    let mut words = BTreeMap::new();
    for arg in args {
        let (key, value) = arg.split_once('=').ok_or_else(|| Failure::Usage(format!("{arg}: key=value")))?;
        words.insert(key, value);
    }
    let count = |key: &str, default: u64| -> Result<u64, Failure> {
        let Some(text) = words.get(key) else { return Ok(default) };
        text.parse().map_err(|error| Failure::Usage(format!("{key}={text}: {error}")))
    };
    let dir = words.get("dir").ok_or_else(|| Failure::Usage("dir= is missing".to_owned()))?;
    let seconds = count("seconds", 0)?;
    Ok(Plan {
        program: format!("{dir}/nothing"),
        target: format!("{dir}/target"),
        peer: inet(parse("127.0.0.1:9")?),
        forks: count("forks", 1)?,
        opens: count("opens", 4)?,
        connects: count("connects", 1)?,
        files: count("files", 0)?,
        programs: count("programs", 0)?,
        rounds: if seconds > 0 { u64::MAX } else { count("rounds", 100)? },
        until: (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds)),
    })
}

fn storm(args: &[String]) -> Outcome {
    let plan = plan(args)?;
    prepare(&plan)?;
    let mut counts = Counts::default();
    let (began, cpu) = (Instant::now(), sys::cpu_nanos()?);
    for _ in 0..plan.rounds {
        if plan.until.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        round(&plan, &mut counts)?;
    }
    let (micros, cpu) = (began.elapsed().as_micros(), sys::cpu_nanos()? - cpu);
    let Counts { forks, execs, opens, connects, failed } = counts;
    say(&format!("STORM forks={forks} execs={execs} opens={opens} connects={connects} failed={failed}"));
    Ok(vec![
        ("forks", forks.to_string()),
        ("execs", execs.to_string()),
        ("micros", micros.to_string()),
        ("cpu", cpu.to_string()),
    ])
}

/// Makes the program and the file that is opened, if the test has not.
fn prepare(plan: &Plan) -> Result<(), Failure> {
    if std::fs::exists(&plan.program)? && std::fs::exists(&plan.target)? {
        return Ok(());
    }
    let options = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o755).to_owned()
    };
    options().open(&plan.program)?.write_all(&tiny_elf())?;
    options().open(&plan.target)?.write_all(b"storm")?;
    Ok(())
}

/// One child per fork, every one of which execs; opens and connects are done by the storm itself.
fn round(plan: &Plan, counts: &mut Counts) -> Result<(), Failure> {
    for _ in 0..plan.opens {
        open_raw(&plan.target, "read")?;
        counts.opens += 1;
    }
    for _ in 0..plan.connects {
        connect(&make(libc::AF_INET, libc::SOCK_DGRAM)?, &plan.peer)?;
        counts.connects += 1;
    }
    let fresh = format!("{}.new", plan.target);
    for _ in 0..plan.files {
        open_raw(&fresh, "create")?;
        std::fs::remove_file(&fresh)?;
    }
    for _ in 0..plan.programs {
        let ended = Command::new(std::env::current_exe()?).arg("noop").stdout(Stdio::null()).status()?;
        counts.failed += u64::from(!ended.success());
    }
    let program = cstr(&plan.program);
    // An exec without arguments beyond the name and without environment: nothing to copy.
    let argv = [program.as_ptr() as usize, 0];
    let argv: Vec<u8> = argv.iter().flat_map(|p| p.to_ne_bytes()).collect();
    for _ in 0..plan.forks {
        match sys::fork() {
            Err(_) => counts.failed += 1,
            Ok(Forked::Child) => {
                let mut args = [Arg::Str(&program), Arg::In(&argv), Arg::In(&argv[8..])];
                call(libc::SYS_execve, &mut args).ok();
                sys::exit_now(1)
            }
            Ok(Forked::Parent { child }) => {
                counts.forks += 1;
                // A status other than 0 means that the exec failed.
                if sys::wait_for(child)? == 0 {
                    counts.execs += 1;
                } else {
                    counts.failed += 1;
                }
            }
        }
    }
    Ok(())
}

/// The smallest executable: one program header, one loaded page, code that ends at once.
fn tiny_elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2_u16, 62] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    elf.extend_from_slice(&1_u32.to_le_bytes());
    for address in [BASE + HEADERS, 64, 0] {
        elf.extend_from_slice(&address.to_le_bytes());
    }
    elf.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    // PT_LOAD, readable and executable
    for word in [1_u32, 5] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    let size = HEADERS + CODE.len() as u64;
    for address in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend_from_slice(&address.to_le_bytes());
    }
    elf.extend_from_slice(CODE);
    elf
}
