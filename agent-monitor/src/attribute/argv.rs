//! Which script or module an interpreter was started for, from its command line. Pure, total on any bytes.
//!
//! `python3 -u x.py`, `node --require y x.js`, `python -m pkg`, `env -S VAR=1 bun run x.ts`. What an option swallows is
//! known per family of interpreter; an unknown option is taken to stand alone.

use super::paths;

/// What an interpreter runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A script file; absolute, by text.
    Script(Vec<u8>),
    /// A module by name (`python -m pkg`).
    Module(Vec<u8>),
}

/// How one family of interpreters reads its command line.
struct Family {
    /// Base names; a version may follow (`python3.12`).
    names: &'static [&'static str],
    /// Options that take the next argument.
    takes: &'static [&'static str],
    /// Options after which there is no script: code in the argument, or from standard input.
    ends: &'static [&'static str],
    /// Options that name a module.
    module: &'static [&'static str],
    /// Words before the script (`bun run x.ts`).
    words: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        names: &["python", "pypy"],
        takes: &["-W", "-X", "--check-hash-based-pycs"],
        ends: &["-c", "-"],
        module: &["-m"],
        words: &[],
    },
    Family {
        names: &["node", "nodejs"],
        takes: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "-C",
            "--conditions",
            "--env-file",
            "--title",
            "--icu-data-dir",
            "--openssl-config",
        ],
        ends: &["-e", "--eval", "-p", "--print", "-pe", "-"],
        module: &[],
        words: &[],
    },
    Family {
        names: &["bun", "deno", "tsx", "ts-node"],
        takes: &[
            "-r",
            "--preload",
            "--require",
            "--import",
            "--config",
            "-c",
            "--cwd",
            "--env-file",
            "--import-map",
        ],
        ends: &["-e", "--eval", "eval", "-p", "--print", "-", "repl", "install", "add", "test", "x"],
        module: &[],
        words: &["run"],
    },
    Family {
        names: &["ruby", "perl"],
        takes: &["-I", "-r", "-C", "-E", "--encoding"],
        ends: &["-e", "-"],
        module: &[],
        words: &[],
    },
    Family {
        names: &["sh", "bash", "dash", "zsh", "ksh"],
        takes: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"],
        ends: &["-c", "-s", "-", "-lc", "-ic", "-ec", "-xc"],
        module: &[],
        words: &[],
    },
];

/// What the command line runs, if its program is an interpreter. `cwd` is the working directory as a host path.
#[must_use]
pub fn program<A: AsRef<[u8]>>(exe: &[u8], args: &[A], cwd: &[u8]) -> Option<Program> {
    let mut args = args.iter().map(AsRef::as_ref).peekable();
    let first = args.next().unwrap_or_default();
    let family = family(base(exe)).or_else(|| family(base(first)))?;
    while let Some(argument) = args.next() {
        let is = |list: &[&str]| list.iter().any(|known| known.as_bytes() == argument);
        if is(family.ends) {
            return None;
        }
        if is(family.module) {
            return args.next().filter(|name| !name.is_empty()).map(|name| Program::Module(name.to_vec()));
        }
        if argument == b"--" {
            return args.next().and_then(|script| absolute(script, cwd)).map(Program::Script);
        }
        if is(family.takes) {
            args.next();
        } else if !argument.starts_with(b"-") && !argument.starts_with(b"+") && !is(family.words) {
            return absolute(argument, cwd).map(Program::Script);
        }
    }
    None
}

fn absolute(script: &[u8], cwd: &[u8]) -> Option<Vec<u8>> {
    match script.first()? {
        b'/' => Some(paths::join(b"/", script)),
        // `//8:1/…` is a directory that is mounted nowhere here.
        _ => (cwd.starts_with(b"/") && !cwd.starts_with(b"//")).then(|| paths::join(cwd, script)),
    }
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn family(name: &[u8]) -> Option<&'static Family> {
    let name = name.strip_prefix(b"-").unwrap_or(name);
    FAMILIES.iter().find(|family| {
        family.names.iter().any(|known| {
            name.strip_prefix(known.as_bytes())
                .is_some_and(|version| version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn script(line: &str) -> Option<String> {
        let args: Vec<&str> = line.split(' ').collect();
        match program(b"", &args, b"/srv") {
            Some(Program::Script(path)) => String::from_utf8(path).ok(),
            Some(Program::Module(name)) => String::from_utf8(name).ok().map(|name| format!("-m {name}")),
            None => None,
        }
    }

    #[test]
    fn scripts_are_found() {
        for (line, found) in [
            ("python3 x.py --once", "/srv/x.py"),
            ("/usr/bin/python3.12 -u -X dev ./a/../x.py", "/srv/x.py"),
            ("python -m aider --model x", "-m aider"),
            ("node --max-old-space-size=4096 -r ./hook.js /opt/cli.js", "/opt/cli.js"),
            ("node -- cli.js", "/srv/cli.js"),
            ("bun run index.ts", "/srv/index.ts"),
            ("bash -e script.sh", "/srv/script.sh"),
            ("-bash x", "/srv/x"),
        ] {
            assert_eq!(script(line).as_deref(), Some(found), "{line}");
        }
        for line in ["python3 -c print", "node", "node -e 1 x.js", "bash -c x", "cat x.py", "pythonista x.py"]
        {
            assert_eq!(script(line), None, "{line}");
        }
    }

    #[test]
    fn the_image_counts_before_what_argv_says() {
        let found = program(b"/usr/bin/node", &["claude", "/opt/cli.js"], b"/");
        assert_eq!(found, Some(Program::Script(b"/opt/cli.js".to_vec())));
        assert_eq!(program(b"/usr/bin/node", &["node", "x.js"], b"//8:1/gone"), None);
        assert_eq!(program(b"/usr/bin/node", &["node", "x.js"], b""), None);
    }

    proptest! {
        #[test]
        fn any_command_line_is_read(
            exe in proptest::collection::vec(any::<u8>(), 0..20),
            args in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..8),
        ) {
            drop(program(&exe, &args, b"/srv"));
        }

        #[test]
        fn flags_before_a_script_do_not_hide_it(flags in proptest::collection::vec("--[a-z]{3,9}(=[a-z]{1,4})?", 0..5), name in "[a-z]{1,8}\\.js") {
            prop_assume!(flags.iter().all(|f| !FAMILIES[1].takes.contains(&f.as_str()) && !FAMILIES[1].ends.contains(&f.as_str())));
            let mut args = vec!["node".to_owned()];
            args.extend(flags);
            args.push(name.clone());
            args.push("other.js".to_owned());
            prop_assert_eq!(program(b"", &args, b"/w"), Some(Program::Script(format!("/w/{name}").into_bytes())));
        }
    }
}
