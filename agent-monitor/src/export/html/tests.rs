//! Hostile names stay text, the page stays small, and its policy fits what is in it.

use super::*;
use crate::log::fake::event;
use crate::model::{File, Mode};

fn hostile() -> Event {
    let mut event = event(1);
    event.file =
        Some(File { path: Some("/srv/<img src=x onerror=alert(1)>\u{202e}\"'".into()), ..File::default() });
    event.verdict = Some(Verdict::Deny);
    event.mode = Some(Mode::Enforce);
    event
}

/// Everything between `<` and `>` outside of script and style.
fn tags(page: &str) -> Vec<String> {
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, rest) = rest.split_once("</style>").unwrap();
    let (body, rest) = rest.split_once("<script>").unwrap();
    let (_, end) = rest.split_once("</script>").unwrap();
    [head, body, end]
        .iter()
        .flat_map(|part| part.split('<').skip(1).map(|tag| tag.split(['>', ' ']).next().unwrap().to_owned()))
        .collect()
}

#[test]
fn names_of_files_and_programs_are_text() {
    let mut report = Report::default();
    report.take(1, &hostile(), Because::Asked);
    let words = BTreeMap::from([("agent".to_owned(), "</code><script>x</script>".to_owned())]);
    report.frame(&Setting::default(), words, Time::EPOCH, Some(("o<b>", 3)), &Outcome::unproven("<i>"));
    let page = report.render();
    for bad in ["<img", "<script>x", "<b>&lt;", "o<b>", "\u{202e}", "onerror=alert(1)>"] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    let known = [
        "!doctype", "html", "/html", "head", "/head", "meta", "title", "/title", "body", "/body", "a", "/a",
        "header", "/header", "h1", "/h1", "p", "/p", "nav", "/nav", "main", "/main", "h2", "/h2", "h3",
        "/h3", "b", "/b", "div", "/div", "span", "/span", "i", "/i", "button", "/button", "svg", "/svg",
        "rect", "table", "/table", "thead", "/thead", "tbody", "/tbody", "tr", "/tr", "th", "/th", "td",
        "/td", "code", "/code", "ul", "/ul", "li", "/li", "details", "/details", "summary", "/summary",
        "label", "/label", "input", "footer", "/footer", "caption", "/caption", "br",
    ];
    for tag in tags(&page).iter().filter(|tag| !tag.is_empty()) {
        assert!(known.contains(&tag.as_str()), "<{tag}>");
    }
}

#[test]
fn the_policy_permits_nothing_but_what_is_in_the_page() {
    let page = Report::default().render();
    let policy =
        page.split("Content-Security-Policy\" content=\"").nth(1).unwrap().split("\">").next().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src &#39;sha256-")
            || policy.starts_with("default-src 'none'; script-src 'sha256-")
    );
    assert!(!policy.contains("unsafe") && !policy.contains("http"));
    let script = page.split("<script>").nth(1).unwrap().split("</script>").next().unwrap();
    let hash = BASE64.encode(Sha256::digest(script));
    assert!(policy.contains(&hash), "{policy}");
    // No attribute may hold a style or a handler: the policy would block it.
    assert!(!page.contains(" style=") && !page.contains(" onclick="));
    assert!(!page.contains("src=\"") && !page.contains("url("));
}

#[test]
fn it_is_readable_with_ten_events_and_bounded_with_a_hundred_thousand() {
    let page = |count: u64| {
        let mut report = Report::default();
        for number in 0..count {
            let mut event = event(number);
            event.verdict = Some(if number.is_multiple_of(7) { Verdict::Deny } else { Verdict::Allow });
            event.technique.clear();
            report.take(number, &event, Because::Asked);
        }
        report.render()
    };
    let (few, many) = (page(10), page(100_000));
    assert!(few.matches("<tr id=\"r").count() == 10 && few.len() < 60_000, "{}", few.len());
    assert!(many.len() < 4_000_000, "{}", many.len());
    assert!(many.contains("100000</b> things"));
    assert!(many.contains("have no row here") && many.contains("at least 2"));
}

#[test]
fn what_was_refused_finds_a_place_after_thousands_that_were_not() {
    let mut report = Report::default();
    for number in 0..30_000 {
        let mut event = event(number);
        event.verdict = Some(if number == 29_999 { Verdict::Deny } else { Verdict::Allow });
        report.take(number, &event, Because::Asked);
    }
    let page = report.render();
    assert!(
        page.contains("<code>/srv/29999</code>") && page.contains("<tr id=\"r29999\""),
        "table of files, and row"
    );
    assert!(page.contains("at least 20001 files"), "the sum does not say more than is known");
}
