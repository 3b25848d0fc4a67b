//! The file an event is about.

use serde::{Deserialize, Serialize};

/// A file and what was done or asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// Path on this host, escaped by [`super::text`]; `null` where it could not be worked out.
    pub path: Option<String>,
    /// What was asked for, in the order of [`Access`].
    pub access: Vec<Access>,
    /// Device as `major:minor`.
    pub dev: Option<String>,
    /// Inode number on that device.
    pub inode: Option<u64>,
    /// The path is not whole: it was deeper or longer than the kernel side walks.
    pub truncated: bool,
    /// Where to, for `file.rename` and `file.link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_path: Option<String>,
    /// What was set, for `file.setattr` and `file.truncate` (`mode=0644`, `size=0`, `xattr=user.x`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

impl File {
    pub(super) fn weight(&self) -> usize {
        [&self.path, &self.dev, &self.new_path, &self.change]
            .into_iter()
            .map(|text| text.as_ref().map_or(0, String::len))
            .sum::<usize>()
            + self.access.len()
    }
}

/// What is done to a file; the words of a record's `scope.file.access`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Content or directory listing is read.
    Read,
    /// Content is changed.
    Write,
    /// A name is made.
    Create,
    /// A name is removed.
    Delete,
    /// A name is moved.
    Rename,
    /// A hard link is made.
    Link,
    /// It is cut to a length.
    Truncate,
    /// Attributes are changed.
    Setattr,
    /// It is executed or mapped to be.
    Exec,
}

impl Access {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Truncate => "truncate",
            Self::Setattr => "setattr",
            Self::Exec => "exec",
        }
    }
}
