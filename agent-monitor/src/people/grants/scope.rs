//! What a grant adds, from the words of a command line to a tiny scope.

use crate::people::sessions::read_scope;
use crate::scope::FileAccess;

/// Rules of one grant at most.
const RULES_MAX: usize = 64;

/// The TOML of a grant's scope. `file` is `PATH` or `PATH:access,access` (read where none is named), `net` a peer, `exec` a
/// program, each in the words of a record.
///
/// # Errors
/// Says which of them is wrong and why.
pub fn text(file: &[String], net: &[String], exec: &[String]) -> Result<String, String> {
    let rules = file.len() + net.len() + exec.len();
    if rules == 0 {
        return Err("a grant adds something: a file, a peer or a program".to_owned());
    }
    if rules > RULES_MAX {
        return Err(format!("a grant adds at most {RULES_MAX} things; change the record for more"));
    }
    let mut text = String::from("[scope]\ndefault = \"deny\"\n");
    for one in file {
        let (path, access) = split(one);
        let access: Vec<String> = access.into_iter().map(quote).collect();
        text.push_str(&format!("[[scope.file]]\npath = {}\naccess = [{}]\n", quote(path), access.join(", ")));
    }
    for one in net {
        text.push_str(&format!("[[scope.net]]\nto = {}\n", quote(one)));
    }
    for one in exec {
        text.push_str(&format!("[[scope.exec]]\npath = {}\n", quote(one)));
    }
    read_scope(&text).map_err(|error| format!("{error} (in the grant's scope:\n{text})"))?;
    Ok(text)
}

/// Path and accesses. A colon that no access follows belongs to the path.
fn split(text: &str) -> (&str, Vec<&str>) {
    let known = |word: &str| FileAccess::WORDS.iter().any(|(name, _)| *name == word);
    match text.rsplit_once(':') {
        Some((path, access)) if access.split(',').all(known) => (path, access.split(',').collect()),
        _ => (text, vec!["read"]),
    }
}

/// A TOML basic string; JSON's form is one.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::sessions::read_scope;

    fn one(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn words_become_rules() {
        let text = text(&one("/srv/a:b/**:read,write"), &one("*.example.com:443/tcp"), &one("/usr/bin/git"))
            .unwrap();
        let scope = read_scope(&text).unwrap();
        let rule = &scope.file[0].value;
        assert_eq!((rule.path.to_string().as_str(), rule.access.len()), ("/srv/a:b/**", 2));
        assert_eq!((scope.net.len(), scope.exec.len()), (1, 1));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(text(&[], &[], &[]).unwrap_err().contains("adds something"));
        assert!(text(&one("relative"), &[], &[]).is_err());
        assert!(text(&one("/a\"]\nverdict = \"allow"), &[], &[]).is_ok_and(|text| text.lines().count() == 5));
        assert!(text(&[], &one("not a peer"), &[]).is_err());
        assert!(text(&vec!["/a".to_owned(); 65], &[], &[]).unwrap_err().contains("at most"));
    }
}
