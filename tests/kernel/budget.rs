//! What each program costs the kernel's verifier, against the golden figures of the kernel series: a rise over a tenth, a
//! program more or a program less is a decision, not an accident.
//!
//! To accept figures: put the lines that the failure prints into `tests/golden/verifier/SERIES.txt`.

use std::collections::BTreeMap;

use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::world;

pub(crate) const CASES: &[Case] = &[Case::vm("verifier", verifier)];

const GOLDEN: &[(&str, &str)] = &[
    ("6.1.", include_str!("../golden/verifier/6.1.txt")),
    ("6.12.", include_str!("../golden/verifier/6.12.txt")),
    ("6.18.", include_str!("../golden/verifier/6.18.txt")),
    ("7.3.", include_str!("../golden/verifier/7.3.txt")),
];

fn verifier() -> Verdict {
    let world = world::shared();
    let report = world.daemon.cli_json(&["doctor", "-o", "json"]);
    let kernel = report["kernel"].as_str().unwrap();
    let programs = report["programs"].as_array().unwrap();
    let found: BTreeMap<String, u64> = programs
        .iter()
        .map(|p| (p["name"].as_str().unwrap().to_owned(), p["verified_instructions"].as_u64().unwrap()))
        .collect();
    let lines: Vec<String> = found.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let Some((_, golden)) = GOLDEN.iter().find(|(series, _)| kernel.starts_with(series)) else {
        // There is a newer kernel in the matrix than there are figures.
        println!("\nFIGURES budget: no golden figures for {kernel}; they are now:\n{}", lines.join("\n"));
        return Ok(());
    };
    let pairs = golden.lines().filter_map(|line| line.split_once(' '));
    let golden: BTreeMap<String, u64> =
        pairs.map(|(name, count)| (name.to_owned(), count.trim().parse().unwrap())).collect();
    let mut wrong = Vec::new();
    for (name, count) in &found {
        match golden.get(name) {
            Some(budget) if *count * 10 <= *budget * 11 => {}
            Some(budget) => wrong.push(format!("{name}: {count} instructions verified, {budget} were")),
            None => wrong.push(format!("{name}: no figure for it")),
        }
    }
    wrong.extend(
        golden.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name}: is gone")),
    );
    assert!(wrong.is_empty(), "{kernel}:\n{}\n\nfigures now:\n{}", wrong.join("\n"), lines.join("\n"));
    Ok(())
}
