//! How the screen looks. All text from agents is escaped before it is drawn.

use agent_monitor::model::Event;
use agent_monitor::people::api::{ApprovalDetail, ApprovalView};
use agent_monitor::people::approvals::view::{left_words, span_words};
use agent_monitor::registry::diagnostic::escape;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::super::{approval, output::or_dash};
use super::state::{App, Says};

/// Lines of the list at most.
const LIST_MAX: usize = 8;
/// Characters of a command line at most.
const COMMAND_MAX: usize = 240;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let list = u16::try_from(app.waiting.len().clamp(1, LIST_MAX)).unwrap_or(1) + 2;
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(list),
        Constraint::Min(4),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [head, waiting, detail, message, keys] = areas.areas(frame.area());
    frame.render_widget(heading(app, head.width), head);
    draw_list(frame, app, waiting);
    match &app.detail {
        Some(one) => draw_detail(frame, app, one, detail),
        None => {
            let text = if app.waiting.is_empty() { "Nothing waits for you." } else { "…" };
            frame.render_widget(Paragraph::new(text).dim().centered(), detail);
        }
    }
    frame.render_widget(said(app), message);
    frame.render_widget(Paragraph::new(help(app)), keys);
    if app.confirm.is_some() {
        draw_confirm(frame, app);
    }
}

fn heading(app: &App, width: u16) -> Paragraph<'static> {
    let count = app.waiting.len();
    let left = match count {
        0 => " agent-monitor  nothing waits".to_owned(),
        count => format!(" agent-monitor  {count} WAIT"),
    };
    let time = format!("{:.0}", app.now.timestamp());
    let right = format!("you are {}  {time} ", escape(&app.user));
    let gap = usize::from(width).saturating_sub(left.chars().count() + right.chars().count());
    let style = if count > 0 { Style::new().black().on_yellow() } else { Style::new().reversed() };
    Paragraph::new(format!("{left}{}{right}", " ".repeat(gap))).style(style.add_modifier(Modifier::BOLD))
}

fn draw_list(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let block = Block::bordered().title(" waiting, the longest first ");
    let inner = usize::from(area.width.saturating_sub(2));
    let at = app.position();
    let first = at.saturating_sub(LIST_MAX - 1);
    let line = |(index, one): (usize, &ApprovalView)| {
        let mark = if index == at { "▶" } else { " " };
        let many = if one.count > 1 { format!(" ×{}", one.count) } else { String::new() };
        let left = left_of(app, one);
        let what = format!("{} {}", one.event.kind, escape(&approval::object(&one.event)));
        let head = format!("{mark}{:>4} {:<16} ", one.id, clip(&escape(&one.agent), 16));
        let tail = format!("{many} {left:>8}");
        let room = inner.saturating_sub(head.chars().count() + tail.chars().count());
        let text = format!("{head}{:<room$}{tail}", clip(&what, room));
        if index == at { Line::from(text).bold().reversed() } else { Line::from(text) }
    };
    let lines: Vec<Line<'_>> = app.waiting.iter().enumerate().skip(first).take(LIST_MAX).map(line).collect();
    let lines = if lines.is_empty() { vec![Line::from("—").dim()] } else { lines };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// What is left of the time, as of now.
fn left_of(app: &App, one: &ApprovalView) -> String {
    let age = u64::try_from(app.age.as_millis()).unwrap_or(0);
    left_words(one.left_ms.saturating_sub(age) / 1000)
}

/// The first characters, with a mark where there were more.
fn clip(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn draw_detail(frame: &mut Frame<'_>, app: &App, detail: &ApprovalDetail, area: Rect) {
    let one = &detail.approval;
    let process = one.event.process.as_deref();
    let user = process.and_then(|process| process.user.clone().or(process.uid.map(|uid| uid.to_string())));
    let pid = process.map_or_else(|| "-".to_owned(), |process| process.pid.to_string());
    let what = format!("{} {}", one.event.kind, approval::object(&one.event));
    let held =
        if one.held { "the process is stopped inside it" } else { "it was refused; the next try may pass" };
    let waits = match one.waiting.len() {
        0 | 1 => format!("{} left, then it is denied; {held}", left_of(app, one)),
        more => format!("{} left, then it is denied; {more} processes; {held}", left_of(app, one)),
    };
    let yes: Vec<String> = one.votes.iter().map(|vote| or_dash(vote.user.as_ref())).collect();
    let people = format!(
        "{} of {} so far{}",
        yes.len(),
        one.need,
        if yes.is_empty() { String::new() } else { format!(": {}", yes.join(", ")) }
    );
    let labels = if one.event.labels.is_empty() { "none".to_owned() } else { one.event.labels.join(", ") };
    let mut lines = vec![
        field("WHAT", &what, Style::new().bold().yellow()),
        field("RULE", &or_dash(one.event.rule.as_ref()), Style::new()),
        field("COMMAND", &shortened(&approval::command(&one.event)), Style::new().bold()),
        field(
            "PROCESS",
            &format!("pid {pid} as {} in {}", or_dash(user), or_dash(process.and_then(|p| p.cwd.as_ref()))),
            Style::new(),
        ),
        field("PARENTS", &approval::ancestry(&one.event), Style::new()),
        field("AGENT", &format!("{} — {}", one.agent, or_dash(detail.purpose.as_ref())), Style::new().bold()),
        field("OWNER", &or_dash(detail.owner.as_ref()), Style::new()),
        field("SESSION", &approval::session(detail), Style::new()),
        field(
            "HAS READ",
            &labels,
            if one.event.labels.is_empty() { Style::new() } else { Style::new().red().bold() },
        ),
        field("WAITS", &waits, Style::new()),
        field("YES", &format!("{people}; may: {}", one.approvers), Style::new()),
    ];
    let room = usize::from(area.height.saturating_sub(3)).saturating_sub(lines.len());
    if room > 1 && !detail.recent.is_empty() {
        lines.push(Line::from(" recent actions").dim());
        let skip = detail.recent.len().saturating_sub(room - 1);
        lines.extend(detail.recent.iter().skip(skip).map(|event| Line::from(recent(event)).dim()));
    }
    let title = format!(" approval {} ", one.id);
    frame.render_widget(
        Paragraph::new(lines).wrap(Wrap { trim: false }).block(Block::bordered().title(title)),
        area,
    );
}

/// A recent action in one line.
fn recent(event: &Event) -> String {
    let time = event.time.timestamp().strftime("%H:%M:%S").to_string();
    let verdict = event.verdict.map_or("note", |verdict| verdict.as_str());
    format!(" {time} {verdict:<5} {} {}", event.kind, escape(&approval::object(event)))
}

/// A command line that leaves room for the rest of the screen.
fn shortened(command: &str) -> String {
    match command.chars().count().checked_sub(COMMAND_MAX) {
        None | Some(0) => command.to_owned(),
        Some(more) => format!("{} ({more} more characters: approval show)", clip(command, COMMAND_MAX)),
    }
}

fn field(name: &str, value: &str, style: Style) -> Line<'static> {
    Line::from(vec![Span::from(format!(" {name:<9} ")).dim(), Span::styled(escape(value), style)])
}

fn said(app: &App) -> Paragraph<'static> {
    if let Some(lost) = &app.lost {
        let text = format!(" NO DAEMON: {} — what is held is denied until it is back", escape(lost));
        return Paragraph::new(text).style(Style::new().white().on_red().bold());
    }
    if let Some((bad, text)) = &app.message {
        let style = if *bad { Style::new().white().on_red().bold() } else { Style::new().green() };
        return Paragraph::new(format!(" {}", escape(text))).style(style);
    }
    if let Some(flood) = app.floods.first() {
        let text = format!(
            " FLOOD: {} asks too much; {} further requests were denied at once",
            escape(&flood.agent),
            flood.denied
        );
        return Paragraph::new(text).style(Style::new().white().on_magenta().bold());
    }
    Paragraph::new("")
}

fn help(app: &App) -> Line<'static> {
    let key = |key: &str, what: &str| {
        [Span::from(format!(" {key}")).bold().cyan(), Span::from(format!(" {what} "))]
    };
    let keys = match (&app.confirm, &app.detail) {
        (Some(_), _) => vec![key("y", "yes"), key("any other", "no")],
        (None, None) => vec![key("q", "leave")],
        (None, Some(_)) => vec![
            key("o", "once"),
            key("m", "for minutes"),
            key("s", "session"),
            key("d", "deny"),
            key("x", "deny and suspend"),
            key("↑↓", "choose"),
            key("q", "leave"),
        ],
    };
    Line::from(keys.into_iter().flatten().collect::<Vec<_>>())
}

/// What is about to be said, spelled out.
fn draw_confirm(frame: &mut Frame<'_>, app: &App) {
    let (Some(answer), Some(detail)) = (&app.confirm, &app.detail) else { return };
    let agent = escape(&detail.approval.agent);
    let what =
        format!("{} {}", detail.approval.event.kind, escape(&approval::object(&detail.approval.event)));
    let (title, text, colour) = match answer.says {
        Says::For(minutes) => (
            " MORE than this one action ",
            format!(
                "Every process of {agent} may do exactly this, as often as it likes, for {}:",
                span_words(u64::from(minutes) * 60)
            ),
            Color::Yellow,
        ),
        Says::Session => (
            " MORE than this one action ",
            format!(
                "Every process of session {} of {agent} may do exactly this, as often as it likes, until the session ends:",
                escape(&detail.session.as_ref().map_or_else(|| "-".to_owned(), |session| session.id.clone()))
            ),
            Color::Yellow,
        ),
        Says::DenyAndSuspend => (
            " deny AND suspend ",
            format!("This is refused, and ALL of {agent} is stopped until somebody resumes it:"),
            Color::Red,
        ),
        Says::Once | Says::Deny => (" ", String::new(), Color::White),
    };
    let area = frame.area();
    let width = area.width.saturating_sub(8).clamp(20, 90);
    let [area] =
        Layout::horizontal([Constraint::Length(width)]).flex(ratatui::layout::Flex::Center).areas(area);
    let [area] = Layout::vertical([Constraint::Length(9)]).flex(ratatui::layout::Flex::Center).areas(area);
    let keys = match answer.says {
        Says::For(_) => "y yes   + - more or fewer minutes   any other key: no",
        _ => "y yes   any other key: no",
    };
    let lines = vec![
        Line::from(text),
        Line::from(""),
        Line::from(what).bold(),
        Line::from(""),
        Line::from(keys).bold().cyan(),
    ];
    let block = Block::bordered().title(title).border_style(Style::new().fg(colour).bold());
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::Key;
    use super::super::state::tests::{app as empty, two};
    use super::*;

    fn picture(app: &App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_screen_says_everything_that_is_needed() {
        let app = two();
        insta::assert_snapshot!(picture(&app, 100, 28));
    }

    #[test]
    fn more_than_one_action_is_spelled_out_first() {
        let mut app = two();
        app.key(Key::Letter('m'));
        app.key(Key::Letter('+'));
        insta::assert_snapshot!(picture(&app, 100, 28));
    }

    #[test]
    fn a_small_screen_and_an_empty_one_and_a_lost_daemon() {
        let mut app = two();
        let small = picture(&app, 60, 14);
        assert!(small.contains("WHAT") && small.contains("once"), "{small}");
        picture(&app, 1, 1);
        app.link(Some("no daemon answers on /run/x".to_owned()));
        assert!(picture(&app, 100, 28).contains("NO DAEMON"));
        let empty = picture(&empty(), 80, 12);
        assert!(empty.contains("Nothing waits for you"), "{empty}");
    }

    #[test]
    fn what_an_agent_writes_cannot_draw() {
        let mut app = two();
        let mut detail = app.detail.clone().unwrap();
        let process = std::sync::Arc::make_mut(detail.approval.event.process.as_mut().unwrap());
        process.args = vec!["\u{1b}[2J\u{1b}[1;1Happroved\r\n".to_owned(), "\u{202e}evil".to_owned()];
        app.detail(detail);
        let picture = picture(&app, 100, 28);
        assert!(!picture.contains('\u{1b}') && !picture.contains('\u{202e}'), "{picture}");
    }
}
