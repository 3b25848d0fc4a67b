//! `run`: the daemon in the foreground. What this host can do, the registered agents, the live stream, a summary.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use agent_monitor::config::{Config, Stream};
use agent_monitor::control::Daemon as _;
use agent_monitor::health::Summary;
use agent_monitor::health::doctor::{Level, Report};
use agent_monitor::record::{Filter, Subscription};
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::run::demo::{Demo, Played};
use agent_monitor::run::live::Live;
use agent_monitor::run::{Core, Port, Prepared};
use anyhow::Context as _;

use super::exit::note;
use super::output::Out;
use super::run::RunArgs;
use super::{Shared, block_on, doctor, event_line, summary};

/// How long the demo's last events may take to come in.
const DEMO_REST: Duration = Duration::from_millis(1500);

pub(crate) fn run(
    args: &RunArgs,
    shared: &Shared,
    open: impl FnOnce(&Config) -> anyhow::Result<Box<dyn Port>>,
) -> anyhow::Result<ExitCode> {
    log();
    let mut config = args.config(shared)?;
    let demo = match config.demo {
        true => Some(Arc::new(Demo::new().context("cannot make the demo's directory")?)),
        false => None,
    };
    if let Some(demo) = &demo {
        config = demo.config(config);
    }
    let stream = config.stream;
    let prepared = Prepared::new(config.clone())?;
    let port = open(&config)?;
    let mut running = prepared.start(port)?;
    let core = Arc::clone(running.core());
    banner(&core, &config, demo.as_deref())?;
    let printer = printer(&core, stream, running.ender())?;
    let player = demo.clone().map(|demo| play(demo, &core, running.ender())).transpose()?;
    running.wait();
    let total = running.shutdown();
    // The record is closed now, so the printer ends after what is waiting for it.
    let printed = printer.map(|thread| thread.join()).transpose();
    printed.map_err(|_panic| anyhow::anyhow!("the live stream panicked"))?.transpose()?;
    if let Some(player) = player {
        player.join().map_err(|_panic| anyhow::anyhow!("the demo panicked"))??;
    }
    end(&total?, stream)?;
    if core.stays() {
        note(&format!(
            "enforcement goes on without the daemon (pins in {}); `agent-monitor detach` ends it",
            config.bpffs.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads the kernel side.
pub(crate) fn open(config: &Config) -> anyhow::Result<Box<dyn Port>> {
    Ok(Box::new(Live::load(config)?))
}

/// Messages of the daemon go to standard error, as journald wants them.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AGENT_MONITOR_LOG")
        .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("info"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    // Set already only in tests.
    subscriber.without_time().with_target(false).try_init().ok();
}

fn banner(core: &Core, config: &Config, demo: Option<&Demo>) -> anyhow::Result<()> {
    if config.stream != Stream::Text {
        let agents = core.agents().len();
        note(&format!("agent-monitor: level {}, {agents} agents registered", core.report().level.as_str()));
        if let Some(demo) = demo {
            asks(core, demo)?.iter().for_each(|line| note(line));
        }
        return Ok(());
    }
    let mut out = Out::new();
    level(&mut out, core.report())?;
    let agents = core.agents();
    if agents.is_empty() {
        out.line(&format!("No agents are registered in {}.", config.registry.display()))?;
        out.line("Register one with `agent-monitor agent register FILE`; see `agent-monitor agent schema`.")?;
    } else {
        let rows = agents.iter().map(|agent| {
            let running = agent.processes.map_or_else(String::new, |count| count.to_string());
            vec![agent.id.clone(), agent.owner.clone(), running, agent.purpose.clone()]
        });
        out.table(&["AGENT", "OWNER", "RUNNING", "PURPOSE"], rows)?;
    }
    let status = core.status();
    for refused in &status.refused {
        out.line(&format!("refused: {}: {}", escape(&refused.file), escape(&refused.reason)))?;
    }
    out.line("")?;
    if let Some(demo) = demo {
        out.line(&format!(
            "Demo: {} runs now, and is watched.",
            demo.dir().join("bin/demo-agent.sh").display()
        ))?;
        asks(core, demo)?.iter().try_for_each(|line| out.line(line))?;
    } else {
        out.line("Watching; Ctrl-C ends.")?;
    }
    out.line(&event_line::heading())?;
    Ok(out.flush()?)
}

/// What a person can do while the demo runs.
fn asks(core: &Core, demo: &Demo) -> anyhow::Result<Vec<String>> {
    let (outside, program) = (demo.outside()?, std::env::current_exe().context("who am I?")?);
    let how = match holds(core) {
        true => "and is stopped inside the call until a person decides, for 60 s at most",
        false => {
            "which this host's level cannot hold: it is refused and asked about, tried again each second, and the next \
             try passes after a yes"
        }
    };
    Ok(vec![
        format!("Demo: it pushes a file out to {outside}, {how}. Decide in another terminal:"),
        format!("  {} approval watch --socket {}", program.display(), demo.socket().display()),
    ])
}

/// Whether this host can stop a process inside a call.
fn holds(core: &Core) -> bool {
    core.report().level == Level::Full
}

fn level(out: &mut Out, report: &Report) -> anyhow::Result<()> {
    out.line(&format!("level {} on kernel {}", report.level.as_str(), report.kernel))?;
    let families = report.families.iter().map(|row| {
        let cells = [&row.see, &row.stop, &row.hold, &row.name, &row.budget].map(doctor::cell);
        std::iter::once(row.family.clone()).chain(cells).collect()
    });
    out.table(&["FAMILY", "SEE", "STOP", "HOLD", "NAME", "BUDGET"], families)?;
    for check in report.checks.iter().filter(|check| !check.ok) {
        out.line(&format!("{}: {}", check.name, escape(&check.found)))?;
    }
    out.line("`agent-monitor doctor` says why and what to do about it.")?;
    Ok(out.line("")?)
}

type Printer = JoinHandle<anyhow::Result<()>>;

/// Shows every event on a thread of its own. A reader that goes away ends the daemon.
fn printer(
    core: &Core,
    stream: Stream,
    ender: signal_hook::iterator::Handle,
) -> anyhow::Result<Option<Printer>> {
    if stream == Stream::None {
        return Ok(None);
    }
    let (page, subscription) = core.store().subscribe(Filter::default(), true)?;
    let show = move || {
        let result = show(page.events, subscription, stream);
        ender.close();
        result
    };
    Ok(Some(std::thread::Builder::new().name("stream".to_owned()).spawn(show)?))
}

fn show(
    history: Vec<Arc<agent_monitor::model::Event>>,
    mut subscription: Subscription,
    stream: Stream,
) -> anyhow::Result<()> {
    block_on(async move {
        let mut out = Out::new();
        let colour = out.colour();
        let mut waiting = history.into_iter();
        loop {
            let next = match waiting.next().or_else(|| subscription.try_next()) {
                Some(event) => Some(event),
                None => {
                    out.flush()?;
                    subscription.next().await
                }
            };
            let Some(event) = next else { break };
            match stream {
                Stream::Jsonl => out.line(&event.to_line()?)?,
                Stream::Text | Stream::None => out.line(&event_line::render(&event, colour))?,
            }
        }
        Ok(out.flush()?)
    })?
}

/// Runs the demo's agent to its end, and then ends the daemon.
fn play(
    demo: Arc<Demo>,
    core: &Arc<Core>,
    ender: signal_hook::iterator::Handle,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let core = Arc::clone(core);
    let run = move || {
        let played = demo.play(holds(&core), || core.wait(Duration::from_millis(20)));
        core.wait(DEMO_REST);
        ender.close();
        let Played { status, pushed } = played.context("cannot run the demo's agent")?;
        if !status.success() {
            note(&format!("the demo's agent ended with {status}"));
        }
        let sizes: Vec<String> = pushed.iter().map(|bytes| format!("{bytes} bytes")).collect();
        let what = if sizes.is_empty() { "nothing".to_owned() } else { sizes.join(", ") };
        note(&format!("demo: what reached the listener outside: {what}"));
        Ok(())
    };
    Ok(std::thread::Builder::new().name("demo".to_owned()).spawn(run)?)
}

fn end(total: &Summary, stream: Stream) -> anyhow::Result<()> {
    let text = summary::render(total);
    if stream != Stream::Text {
        note(text.trim_end());
        return Ok(());
    }
    let mut out = Out::new();
    out.line("")?;
    out.text(&text)?;
    Ok(out.flush()?)
}
