//! A test in a table: its name, where it runs, and how it says that it cannot.

use super::lane::{Lane, lane};
use super::leftover::Before;
use libtest_mimic::{Completion, Failed, Trial};
use std::path::Path;

/// Where a case runs. A case that is not for a lane does not exist there; it is not a skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Both,
    Vm,
    Host,
    /// The host, and virtual machines that were given this program (`cargo xtask vm --with`).
    With(&'static str),
    /// Virtual machines that have this program.
    VmWith(&'static str),
}

/// Why a test that belongs to this lane could not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip(pub String);

impl Skip {
    pub fn because<T>(reason: impl Into<String>) -> Result<T, Self> {
        Err(Self(reason.into()))
    }
}

/// A test passes, panics, or says why it could not run.
pub type Verdict = Result<(), Skip>;

/// One row of a family's table.
pub struct Case {
    pub name: &'static str,
    pub on: On,
    pub run: fn() -> Verdict,
}

/// Runs a case, and looks at what it leaves behind.
fn alone(family: &str, enter: fn(&str), run: fn() -> Verdict) -> Result<Vec<String>, Skip> {
    enter(family);
    let before = Before::look();
    run()?;
    Ok(before.left())
}

impl Case {
    pub const fn both(name: &'static str, run: fn() -> Verdict) -> Self {
        Self { name, on: On::Both, run }
    }

    pub const fn vm(name: &'static str, run: fn() -> Verdict) -> Self {
        Self { name, on: On::Vm, run }
    }

    pub const fn host(name: &'static str, run: fn() -> Verdict) -> Self {
        Self { name, on: On::Host, run }
    }

    pub const fn with(name: &'static str, program: &'static str, run: fn() -> Verdict) -> Self {
        Self { name, on: On::With(program), run }
    }

    pub const fn vm_with(name: &'static str, program: &'static str, run: fn() -> Verdict) -> Self {
        Self { name, on: On::VmWith(program), run }
    }

    fn belongs_here(&self) -> bool {
        match self.on {
            On::Both => true,
            On::Vm => lane() == Lane::Vm,
            On::Host => lane() == Lane::Host,
            On::VmWith(program) => lane() == Lane::Vm && Path::new(program).exists(),
            On::With(program) => lane() == Lane::Host || Path::new(program).exists(),
        }
    }

    /// The test as libtest-mimic runs it, `family::case`; `None` where it does not belong to this lane.
    /// `enter` is called with the family before it runs.
    pub fn trial(&self, family: &'static str, enter: fn(&str)) -> Option<Trial> {
        let (name, run) = (format!("{family}::{}", self.name), self.run);
        self.belongs_here().then(|| {
            let shown = name.clone();
            Trial::ignorable_test(name, move || match alone(family, enter, run) {
                Ok(left) if left.is_empty() => Ok::<_, Failed>(Completion::Completed),
                Ok(left) => Err(Failed::from(format!("left behind: {}", left.join("; ")))),
                Err(Skip(reason)) => {
                    // On a line of its own: the runner is in the middle of `test NAME ... `.
                    println!("\nSKIP {shown}: {reason}");
                    Ok(Completion::ignored_with(reason))
                }
            })
        })
    }
}
