//! Programs that many run for many purposes: one of these by path alone recognises no agent.
//!
//! The one list for sweeps, proposals and the checks of records. Names, not paths: what counts is the last part of a
//! path, without version (`python3.11`, `busybox.static`). Who must also know where a link leads asks the host.

use super::{diagnostic::Severity, record::Match};

/// What a shared program is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedKind {
    /// Reads commands of people and of other programs.
    Shell,
    /// Starts another program, which then is what runs.
    Launcher,
    /// Keeps the sessions of people and services, and starts what they ask for.
    Session,
    /// Runs a script that it is given.
    Interpreter,
    /// Fetches or finds a package and runs it.
    PackageRunner,
    /// Does one thing for whoever calls it.
    Tool,
}

impl SharedKind {
    /// With article, as messages name it.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Shell => "a shell",
            Self::Launcher => "a launcher of other programs",
            Self::Session => "a program that keeps sessions",
            Self::Interpreter => "an interpreter",
            Self::PackageRunner => "a package runner",
            Self::Tool => "a tool that other programs call",
        }
    }

    /// Whether people, and this program's own commands, are started by it.
    #[must_use]
    pub fn starts_people(self) -> bool {
        matches!(self, Self::Shell | Self::Launcher | Self::Session)
    }
}

/// Every name, by kind; without version, in lower case.
const SHARED: &[(SharedKind, &str)] = &[
    (
        SharedKind::Shell,
        "ash bash bash-static brush busybox csh dash elvish fish ksh ksh93 mksh nu oksh osh posh \
         pwsh rbash rc sash sh static-sh tcsh toybox xonsh yash zsh zsh-static rzsh git-shell",
    ),
    (
        SharedKind::Launcher,
        "bwrap capsh catchsegv chpst chroot chrt choom coreutils dbus-run-session doas dumb-init \
         entr env envdir exec fakeroot faketime find firejail flatpak flock gdb gosu ionice ld.so \
         ld-linux ld-linux-aarch64.so ld-linux-x86-64.so ld-musl-x86_64.so ltrace make ninja nice \
         nohup nsenter numactl parallel perf pkexec prlimit proot run-parts runc runcon runuser \
         s6-setuidgid setarch linux32 linux64 setpriv setsid setuidgid sg snap snap-confine \
         snap-exec softlimit start-stop-daemon stdbuf strace su su-exec sudo sudo-rs systemd-cat \
         systemd-inhibit systemd-nspawn systemd-run run taskset time timeout tini tini-static \
         unbuffer unshare valgrind watch watchexec xargs xvfb-run catatonit conmon crun \
         kata-runtime podman docker docker-init nerdctl distrobox toolbox direnv dotenv just script \
         expect socat",
    ),
    (
        SharedKind::Session,
        "abduco agetty alacritty anacron at atd byobu code code-insiders code-server codium \
         containerd containerd-shim containerd-shim-runc containerd-shim-runc-v cron crond \
         dbus-broker dbus-broker-launch dbus-daemon dockerd dropbear dtach dvtm emacs foot fcron \
         gdm gdm-session-worker getty ghostty gitlab-runner gnome-shell gnome-session-binary \
         gnome-terminal-server init kitty konsole ksmserver kwin_wayland lightdm login lxterminal \
         mosh-server nvim openrc openrc-init plasmashell ptyxis ptyxis-agent runner.listener \
         runner.worker runsv runsvdir runit s6-supervise s6-svscan screen sddm sddm-helper ssh sshd \
         sshd-auth sshd-session st supervise supervisord systemd systemd-executor sulogin \
         terminator tilix tmate tmux ttyd urxvt vim wezterm-gui wezterm-mux-server xfce4-terminal \
         xterm zellij kthreadd (sd-pam) xinit startx greetd kscreen waypipe gnome-console kgx vi \
         vim.basic vim.tiny zed-editor",
    ),
    (
        SharedKind::Interpreter,
        "awk beam.smp bun clojure deno dotnet elixir erl electron gawk groovy guile ipython java \
         jruby jshell julia kotlin lua luajit mawk micropython mono node nodejs ocaml osascript \
         perl php php-fpm pypy pypy3 python python-config qjs quickjs r racket raku rscript ruby \
         scala sbcl tclsh ts-node tsx wasmtime wasmer wine wine64 wish",
    ),
    (
        SharedKind::PackageRunner,
        "asdf brew bundle bunx cargo cargo-binstall composer conda corepack devbox dlx dnx \
         easy_install fnm gem go gradle hatch jbang mamba micromamba mise mvn nix nix-shell npm \
         npm-cli npx npx-cli nvm pdm pip pipenv pipx pixi pnpm pnpx poetry proto rtx rye uv uvx \
         volta volta-shim yarn yarnpkg rustup",
    ),
    (
        SharedKind::Tool,
        "apt apt-get cat cc chmod chown clang cp curl cut date dd diff dpkg echo false fd file g++ \
         gcc gh git git-remote-https grep gzip head id jq kill ld less ln ls mkdir more mv nc ncat \
         openssl patch ps rg rm rsync rustc scp sed sleep sort ssh-agent systemctl tail tar tee \
         test top touch tr true uname wc wget xclip xz agent-monitor chrome chromium firefox",
    ),
];

/// What shared program a path, script or name is; `None` for what is somebody's own.
#[must_use]
pub fn shared_kind(path: &str) -> Option<SharedKind> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let name = path.trim_end_matches('/').rsplit('/').next()?.to_ascii_lowercase();
    // A login shell is called `-bash`.
    let name = name.strip_prefix('-').unwrap_or(&name);
    names(name).into_iter().find_map(kind_of_name)
}

fn kind_of_name(name: &str) -> Option<SharedKind> {
    SHARED
        .iter()
        .find(|(_, names)| names.split_ascii_whitespace().any(|known| known == name))
        .map(|(kind, _)| *kind)
}

/// A name, and what is left of it without endings that say only how, or in which version, it was made.
fn names(name: &str) -> [&str; 4] {
    let endings =
        [".js", ".cjs", ".mjs", ".py", ".exe", ".static", "-static", "-dbg", ".distrib", ".real", "-bin"];
    let bare = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    let version = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    [name, bare, name.trim_end_matches(version), bare.trim_end_matches(version)]
}

/// All names of the list.
#[cfg(test)]
pub(crate) fn all_names() -> impl Iterator<Item = &'static str> {
    SHARED.iter().flat_map(|(_, names)| names.split_ascii_whitespace())
}

/// How much more than an agent a match takes that names a shared program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width {
    kind: SharedKind,
    /// Only processes of one user other than root.
    one_user: bool,
}

impl Width {
    /// An error where it takes what people, and this program's own commands, are started by.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.kind.starts_people() && !self.one_user { Severity::Error } else { Severity::Warning }
    }

    /// Whether it is one of the programs by which people work.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        self.kind.starts_people()
    }

    /// What would happen.
    #[must_use]
    pub fn message(self, exe: &str) -> String {
        let kind = self.kind.in_words();
        let whose = if self.one_user { "of that user" } else { "on this host" };
        let own = if self.severity() == Severity::Error { ", your own included" } else { "" };
        format!("{exe} is {kind}: every run of it {whose} would be the agent's{own}")
    }

    /// What to write instead.
    #[must_use]
    pub fn hint(self) -> &'static str {
        if self.kind == SharedKind::Interpreter {
            "add script or argv, a unit, cgroup or container, or a user that runs nothing else"
        } else {
            "name the program or script that it starts, or add a unit, cgroup, container or argv"
        }
    }
}

impl Match {
    /// How wide the match is for `exe`, the path of its program or where that leads; `None` where it names the agent
    /// closely enough. The contents of a shared program are the same for all who run it, so `sha256` of it narrows nothing.
    #[must_use]
    pub fn shared_width(&self, exe: &str) -> Option<Width> {
        let narrowed = self.script.is_some()
            || self.argv.is_some()
            || self.unit.is_some()
            || self.cgroup.is_some()
            || self.container.is_some();
        let kind = shared_kind(exe).filter(|kind| *kind != SharedKind::Tool && !narrowed)?;
        let one_user = self.user.as_ref().is_some_and(|user| !user.is_root());
        // An interpreter for a user of its own is what a service of one script looks like.
        let own = one_user && !kind.starts_people();
        (!own).then_some(Width { kind, one_user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        let rows = [
            ("/bin/sh", SharedKind::Shell),
            ("-bash", SharedKind::Shell),
            ("/usr/bin/dash", SharedKind::Shell),
            ("/usr/bin/busybox", SharedKind::Shell),
            ("/bin/busybox.static", SharedKind::Shell),
            ("/usr/bin/bash (deleted)", SharedKind::Shell),
            ("/usr/bin/python3.11", SharedKind::Interpreter),
            ("/usr/bin/python3-dbg", SharedKind::Interpreter),
            ("/opt/venv/bin/python", SharedKind::Interpreter),
            ("/usr/bin/node", SharedKind::Interpreter),
            ("/usr/bin/perl5.36.0", SharedKind::Interpreter),
            ("/usr/bin/npx", SharedKind::PackageRunner),
            ("/usr/lib/node_modules/npm/bin/npx-cli.js", SharedKind::PackageRunner),
            ("/root/.local/bin/uvx", SharedKind::PackageRunner),
            ("/usr/bin/pip3", SharedKind::PackageRunner),
            ("/usr/bin/sudo", SharedKind::Launcher),
            ("/usr/bin/env", SharedKind::Launcher),
            ("/usr/bin/nohup", SharedKind::Launcher),
            ("/usr/bin/timeout", SharedKind::Launcher),
            ("/usr/bin/systemd-run", SharedKind::Launcher),
            ("/lib64/ld-linux-x86-64.so.2", SharedKind::Launcher),
            ("/usr/bin/tmux", SharedKind::Session),
            ("/usr/bin/screen", SharedKind::Session),
            ("/usr/lib/systemd/systemd", SharedKind::Session),
            ("/usr/sbin/sshd", SharedKind::Session),
            ("/usr/lib/openssh/sshd-session", SharedKind::Session),
            ("/usr/bin/containerd-shim-runc-v2", SharedKind::Session),
            ("/usr/bin/git", SharedKind::Tool),
        ];
        for (path, kind) in rows {
            assert_eq!(shared_kind(path), Some(kind), "{path}");
        }
        for path in [
            "/opt/claude",
            "/srv/bot.py",
            "/usr/bin/shim",
            "/opt/nodebot",
            "/opt/2.1.0",
            "/x/python-agent",
            "",
        ] {
            assert_eq!(shared_kind(path), None, "{path}");
        }
    }

    #[test]
    fn every_name_is_there_once_and_found() {
        let mut seen = std::collections::BTreeSet::new();
        for name in all_names() {
            assert!(seen.insert(name), "{name} twice");
            assert!(shared_kind(&format!("/usr/bin/{name}")).is_some(), "{name}");
        }
    }
}
