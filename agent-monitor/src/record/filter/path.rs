//! Path patterns: exact, `/dir/**` for a subtree (the directory itself included), or a glob in which `*` and
//! `?` stop at `/` and `**` does not. Paths are compared in the escaped form of `model::text`.

use globset::{GlobBuilder, GlobMatcher};

use super::FilterError;

const HINT: &str = "an absolute path, /dir/** for all below it, or a glob such as **/.env";

#[derive(Debug, Clone)]
pub(super) enum PathPattern {
    Exact(String),
    /// Without the slash at the end; empty is the root.
    Subtree(String),
    Glob(GlobMatcher),
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        let error = |problem: String| FilterError { field: "path", problem, hint: HINT };
        if !text.starts_with('/') && !text.starts_with('*') {
            return Err(error(format!("`{text}` is not absolute")));
        }
        let is_glob = |part: &str| part.contains(['*', '?', '[', '{']);
        if let Some(base) = text.strip_suffix("/**").filter(|base| !is_glob(base)) {
            return Ok(Self::Subtree(base.trim_end_matches('/').to_owned()));
        }
        if !is_glob(text) {
            let exact = text.trim_end_matches('/');
            return Ok(Self::Exact(if exact.is_empty() { "/".to_owned() } else { exact.to_owned() }));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
        glob.map(|glob| Self::Glob(glob.compile_matcher())).map_err(|e| error(e.to_string()))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Subtree(base) => {
                path.strip_prefix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Glob(glob) => glob.is_match(path),
        }
    }
}
