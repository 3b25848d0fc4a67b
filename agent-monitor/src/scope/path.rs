//! Path patterns: the forms a record may use, which is more specific, and which covers which.
//!
//! A pattern is one of
//!
//! | form | means |
//! |---|---|
//! | `/a/b` | exactly that object |
//! | `/a/b/**` | the directory `/a/b` itself and everything below it; `/**` is every object |
//! | `**/name` | every object of that name, at any depth |
//! | `**/*.ext` | every object whose name ends in `.ext`, at any depth |
//!
//! When several rules fit one object the most specific decides, in the order exact, name,
//! extension (longer first), subtree (deeper first). No I/O.

use std::fmt;

use serde::{Serialize, Serializer};

/// Most components that the hook walks from an object up to the root of its file system.
pub const MAX_COMPONENTS: usize = 48;
/// Longest path in bytes (`PATH_MAX` without the closing NUL).
pub const MAX_PATH_BYTES: usize = 4095;
/// Longest name of one component in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;

/// Why a path is impossible, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PathError {
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

fn refuse(problem: impl Into<String>, hint: impl Into<String>) -> PathError {
    PathError { problem: problem.into(), hint: hint.into() }
}

/// Checks an absolute path without wildcards, as the kernel would see it.
///
/// # Errors
/// Refuses empty, relative, `..`, `.`, `//`, trailing `/`, NUL, wildcards, names over 255 bytes,
/// paths over 4,095 bytes and more than 48 components.
pub fn check_absolute(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(refuse("the path is empty", "give an absolute path"));
    }
    if path.contains('\0') {
        return Err(refuse("the path contains NUL", "no file can have this name"));
    }
    if path.starts_with('~') {
        return Err(refuse(
            format!("`{path}` depends on whose home is meant"),
            "write the home directory out, for instance /home/bot/…",
        ));
    }
    let Some(relative) = path.strip_prefix('/') else {
        return Err(refuse(
            format!("`{path}` is relative"),
            "rules name places, not working directories: start with /",
        ));
    };
    if path.len() > MAX_PATH_BYTES {
        return Err(refuse(
            format!("the path has {} bytes", path.len()),
            format!("no system call takes more than {MAX_PATH_BYTES}"),
        ));
    }
    if relative.is_empty() {
        return Ok(());
    }
    let mut components = 0;
    for component in relative.split('/') {
        components += 1;
        check_component(component, path)?;
    }
    if components > MAX_COMPONENTS {
        return Err(refuse(
            format!("the path has {components} components"),
            format!("the kernel walks at most {MAX_COMPONENTS}; name a directory above it with /**"),
        ));
    }
    Ok(())
}

fn check_component(component: &str, path: &str) -> Result<(), PathError> {
    match component {
        "" => Err(refuse(
            format!("`{path}` has an empty component"),
            "remove the doubled or trailing /; a subtree is written /dir/**",
        )),
        "." | ".." => Err(refuse(
            format!("`{path}` contains `{component}`"),
            "write the resolved path; the kernel never sees . or ..",
        )),
        _ if component.contains(['*', '?']) => Err(refuse(
            format!("`{path}` has a wildcard where none is possible"),
            "use an exact path, /dir/**, **/name or **/*.ext",
        )),
        _ if component.len() > MAX_NAME_BYTES => Err(refuse(
            format!("a component has {} bytes", component.len()),
            format!("no file system takes names over {MAX_NAME_BYTES} bytes"),
        )),
        _ => Ok(()),
    }
}

/// Which objects of a file system a rule is about. See the module for the forms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathPattern {
    /// One object, by absolute path.
    Exact(String),
    /// A directory and all below it; the path has no trailing slash and is empty for `/**`.
    Subtree(String),
    /// Every object with this name.
    Name(String),
    /// Every object whose name ends so; begins with a dot.
    Extension(String),
}

/// Rank of a pattern: greater decides. Equal ranks of different patterns cannot fit one object,
/// except two extensions or names of which the verdict table says that the stricter wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    class: u8,
    length: usize,
}

impl PathPattern {
    /// Reads one of the four forms.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if let Some(name) = text.strip_prefix("**/") {
            return Self::parse_name(name, text);
        }
        if let Some(directory) = text.strip_suffix("/**") {
            match directory {
                "" => {}
                "/" => return Err(refuse("`//**` begins with a doubled /", "write /**")),
                _ => check_absolute(directory)?,
            }
            return Ok(Self::Subtree(directory.to_owned()));
        }
        check_absolute(text)?;
        if text == "/" {
            return Err(refuse("`/` is only the root directory itself", "write /** for every object"));
        }
        Ok(Self::Exact(text.to_owned()))
    }

    fn parse_name(name: &str, whole: &str) -> Result<Self, PathError> {
        if name.contains('/') {
            return Err(refuse(
                format!("`{whole}` goes on after the name"),
                "**/ is followed by one file name",
            ));
        }
        if name.contains('\0') {
            return Err(refuse("the name contains NUL", "no file can have this name"));
        }
        if let Some(extension) = name.strip_prefix('*') {
            let rest = extension.strip_prefix('.');
            return match rest {
                Some(rest) if !rest.is_empty() && !rest.contains(['*', '?']) => {
                    check_component(extension, whole)?;
                    Ok(Self::Extension(extension.to_owned()))
                }
                _ => Err(refuse(format!("`{whole}` is no name pattern"), "write **/name or **/*.ext")),
            };
        }
        check_component(name, whole)?;
        Ok(Self::Name(name.to_owned()))
    }

    /// How specific it is; the greater rank decides.
    pub fn specificity(&self) -> Specificity {
        let (class, length) = match self {
            Self::Subtree(directory) => (0, directory.matches('/').count()),
            Self::Extension(extension) => (1, extension.len()),
            Self::Name(_) => (2, 0),
            Self::Exact(_) => (3, 0),
        };
        Specificity { class, length }
    }

    /// Whether the pattern fits an absolute, resolved path.
    pub fn matches(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        match self {
            Self::Exact(exact) => path == exact,
            Self::Subtree(directory) => is_below(path, directory),
            Self::Name(wanted) => name == wanted,
            Self::Extension(extension) => name.ends_with(extension.as_str()),
        }
    }

    /// Whether every object that `other` fits is one that `self` fits.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(path)) => self.matches(path),
            (Self::Subtree(outer), Self::Subtree(inner)) => is_below(inner, outer),
            (Self::Subtree(outer), Self::Name(_) | Self::Extension(_)) => outer.is_empty(),
            (Self::Name(a), Self::Name(b)) => a == b,
            (Self::Extension(a), Self::Name(b) | Self::Extension(b)) => b.ends_with(a.as_str()),
            (Self::Exact(_) | Self::Name(_), _) | (Self::Extension(_), Self::Subtree(_)) => false,
        }
    }

    /// Whether some object could fit both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Subtree(_), Self::Name(_) | Self::Extension(_))
            | (Self::Name(_) | Self::Extension(_), Self::Subtree(_)) => true,
            _ => self.covers(other) || other.covers(self),
        }
    }

    /// The path of an exact pattern.
    pub fn as_exact(&self) -> Option<&str> {
        match self {
            Self::Exact(path) => Some(path),
            Self::Subtree(_) | Self::Name(_) | Self::Extension(_) => None,
        }
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Subtree(directory) => write!(f, "{directory}/**"),
            Self::Name(name) => write!(f, "**/{name}"),
            Self::Extension(extension) => write!(f, "**/*{extension}"),
        }
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[path = "path/tests.rs"]
mod tests;
