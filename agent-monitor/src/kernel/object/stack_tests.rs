//! How deep each program's stack gets, from the instructions themselves: the kernel's verifier allows 512 bytes over all
//! frames of a call chain, each rounded up to 32 (kernel/bpf/verifier.c `check_max_stack_depth`), and says so only by
//! refusing. It is the same on every kernel, so the figures are one golden file.
//!
//! To accept new figures: `BLESS=1 cargo test -p agent-monitor --lib stack`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use super::tests::built;

/// What the verifier allows.
const LIMIT: u32 = 512;
/// Register that points to the frame.
const FRAME: u8 = 10;

/// A function: where it is, how much of its frame it uses, whom it calls or hands to `bpf_loop`.
#[derive(Debug, Default)]
struct Function {
    name: String,
    frame: u32,
    calls: Vec<(usize, u64)>,
    program: bool,
}

type Functions = BTreeMap<(usize, u64), Function>;

fn word(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Bytes of the frame that one instruction reaches down to; `next` for `rX = r10; rX += imm`.
fn reaches(insn: &[u8], next: Option<&[u8]>) -> u32 {
    let (code, dst, src) = (insn[0], insn[1] & 15, insn[1] >> 4);
    let offset = i32::from(i16::from_le_bytes([insn[2], insn[3]]));
    let low = match code & 7 {
        // ST and STX write to [dst + off], LDX reads [src + off].
        2 | 3 if dst == FRAME => offset,
        1 if src == FRAME => offset,
        // rX = r10, then rX += imm.
        7 if code == 0xbf && src == FRAME => match next {
            Some(add) if add[0] == 0x07 && add[1] & 15 == dst => word(add, 4),
            _ => 0,
        },
        _ => 0,
    };
    u32::try_from(-low).unwrap_or(0)
}

fn functions(file: &object::File<'_>) -> Functions {
    let mut found = Functions::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let index = symbol.section_index().unwrap();
        let section = file.section_by_index(index).unwrap();
        let (from, size) = (symbol.address() as usize, symbol.size() as usize);
        let bytes = &section.data().unwrap()[from..from + size];
        let relocations: BTreeMap<u64, object::Relocation> = section.relocations().collect();
        let mut function = Function {
            name: symbol.name().unwrap().to_owned(),
            program: section.name().unwrap() != ".text",
            ..Function::default()
        };
        for at in (0..size).step_by(8) {
            let insn = &bytes[at..at + 8];
            function.frame = function.frame.max(reaches(insn, bytes.get(at + 8..at + 16)));
            let own = (from + at) as u64;
            // A call of a function (src_reg 1), and the address of a callback (src_reg 4 or a relocation to code).
            let call = insn[0] == 0x85 && insn[1] >> 4 == 1;
            let address = insn[0] == 0x18;
            let target = relocations.get(&own).and_then(|relocation| match relocation.target() {
                object::RelocationTarget::Symbol(symbol) => file.symbol_by_index(symbol).ok(),
                _ => None,
            });
            match target {
                Some(symbol) if symbol.kind() == SymbolKind::Text && (call || address) => {
                    function.calls.push((symbol.section_index().unwrap().0, symbol.address()));
                }
                Some(symbol) if symbol.kind() == SymbolKind::Section && (call || address) => {
                    // The implicit addend: instructions from the section's start less one, or bytes.
                    let imm = i64::from(word(insn, 4));
                    let to = if call { (imm + 1) * 8 } else { imm };
                    function.calls.push((symbol.section_index().unwrap().0, to as u64));
                }
                None if call => {
                    let to = (own / 8) as i64 + 1 + i64::from(word(insn, 4));
                    function.calls.push((index.0, (to * 8) as u64));
                }
                _ => {}
            }
        }
        found.insert((index.0, symbol.address()), function);
    }
    found
}

/// The deepest chain from a function on.
fn depth(functions: &Functions, at: (usize, u64), level: u32) -> u32 {
    assert!(level < 16, "a chain of calls without end");
    // An address of something that is no function: data.
    let Some(function) = functions.get(&at) else { return 0 };
    let below = function.calls.iter().map(|call| depth(functions, *call, level + 1)).max().unwrap_or(0);
    function.frame.max(1).next_multiple_of(32) + below
}

#[test]
fn stack_of_every_program() {
    let object = built();
    let file = object::File::parse(object.as_slice()).unwrap();
    let functions = functions(&file);
    let found: BTreeMap<&str, u32> = functions
        .iter()
        .filter(|(_, function)| function.program)
        .map(|(at, function)| (function.name.as_str(), depth(&functions, *at, 0)))
        .collect();
    assert!(found.len() > 60 && found.values().any(|depth| *depth > 200), "{found:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/stack.txt");
    if std::env::var_os("BLESS").is_some() {
        let mut text = String::new();
        for (name, depth) in &found {
            writeln!(text, "{name} {depth}").unwrap();
        }
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let golden: BTreeMap<&str, u32> = golden
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(n, d)| (n, d.parse().unwrap()))
        .collect();
    let mut wrong = Vec::new();
    for (name, depth) in &found {
        if *depth > LIMIT {
            wrong.push(format!("{name}: {depth} bytes, the verifier allows {LIMIT}"));
        }
        match golden.get(name) {
            Some(budget) if *depth * 10 <= *budget * 11 => {}
            Some(budget) => wrong.push(format!("{name}: {depth} bytes of stack, {budget} were")),
            None => wrong.push(format!("{name}: no figure for it, {depth} bytes now")),
        }
    }
    wrong.extend(
        golden.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name}: is gone")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
