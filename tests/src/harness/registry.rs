//! Records as a test writes them.

use std::fmt::Write;
use std::path::Path;

/// One `[[match]]`: `key = value` lines, all of which must hold.
#[derive(Debug, Clone, Default)]
pub struct Match {
    lines: Vec<String>,
}

impl Match {
    fn with(mut self, key: &str, value: &str) -> Self {
        self.lines.push(format!("{key} = {value}"));
        self
    }

    pub fn exe(path: &str) -> Self {
        Self::default().with("exe", &quote(path))
    }

    pub fn script(path: &str) -> Self {
        Self::default().with("script", &quote(path))
    }

    pub fn argv(words: &[&str]) -> Self {
        let words: Vec<String> = words.iter().map(|w| quote(w)).collect();
        Self::default().with("argv", &format!("[{}]", words.join(", ")))
    }

    pub fn user(name: &str) -> Self {
        Self::default().with("user", &quote(name))
    }

    pub fn cgroup(path: &str) -> Self {
        Self::default().with("cgroup", &quote(path))
    }

    pub fn unit(name: &str) -> Self {
        Self::default().with("unit", &quote(name))
    }

    pub fn container(id: &str) -> Self {
        Self::default().with("container", &quote(id))
    }

    pub fn sha256(self, digest: &str) -> Self {
        self.with("sha256", &quote(digest))
    }

    pub fn and_user(self, name: &str) -> Self {
        self.with("user", &quote(name))
    }
}

/// A TOML string. Test paths and names hold nothing that would need more.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A record that is good for years; it observes unless it has an enforced scope.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: String,
    matches: Vec<Match>,
    enforce: bool,
    degrade: bool,
    on_daemon_loss: String,
    hold_timeout: Option<String>,
    approver: Option<String>,
    scope: String,
}

impl Record {
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            matches: Vec::new(),
            enforce: false,
            degrade: false,
            on_daemon_loss: "deny".to_owned(),
            hold_timeout: None,
            approver: None,
            scope: String::new(),
        }
    }

    pub fn on(mut self, rule: Match) -> Self {
        self.matches.push(rule);
        self
    }

    /// What it may do: the text from `[scope]` on.
    pub fn scope(mut self, text: &str) -> Self {
        text.clone_into(&mut self.scope);
        self
    }

    /// Also where the host cannot hold all of the scope.
    pub fn degrade(mut self) -> Self {
        self.degrade = true;
        self
    }

    /// Who may approve what is held.
    pub fn approver(mut self, who: &str) -> Self {
        self.approver = Some(who.to_owned());
        self
    }

    /// What becomes of held actions when the daemon is gone: `deny` or `wait`.
    pub fn on_daemon_loss(mut self, what: &str) -> Self {
        what.clone_into(&mut self.on_daemon_loss);
        self
    }

    /// How long an act is held.
    pub fn hold_timeout(mut self, span: &str) -> Self {
        self.hold_timeout = Some(span.to_owned());
        self
    }

    pub fn enforce(mut self) -> Self {
        self.enforce = true;
        self
    }

    pub fn toml(&self) -> String {
        let mut text = format!(
            "[agent]\nid = {id}\nowner = \"tests@example.com\"\npurpose = \"a test\"\n\
             expires = 2099-12-31T00:00:00Z\nmode = {mode}\n",
            id = quote(&self.id),
            mode = quote(if self.enforce { "enforce" } else { "observe" })
        );
        // What is tested at level partial too must not be refused there.
        if self.degrade || self.enforce {
            text.push_str("degrade = \"allow\"\n");
        }
        if let Some(who) = &self.approver {
            writeln!(text, "approvers = [{}]", quote(who)).unwrap();
        }
        if self.on_daemon_loss != "deny" {
            writeln!(text, "on_daemon_loss = {}", quote(&self.on_daemon_loss)).unwrap();
        }
        if let Some(span) = &self.hold_timeout {
            writeln!(text, "hold_timeout = {}", quote(span)).unwrap();
        }
        for rule in &self.matches {
            write!(text, "\n[[match]]\n{}\n", rule.lines.join("\n")).unwrap();
        }
        text.push('\n');
        text.push_str(&self.scope);
        text
    }

    /// Writes `ID.toml` by rename, as a careful operator would.
    pub fn write(&self, registry: &Path) {
        let (new, path) =
            (registry.join(format!(".{}.new", self.id)), registry.join(format!("{}.toml", self.id)));
        std::fs::write(&new, self.toml()).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }
}
