//! The actor: see [`agent_monitor_tests::actor`].

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(agent_monitor_tests::actor::main(&args));
}
