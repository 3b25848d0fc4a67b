//! Path patterns against hand-written cases and random ones.

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_four_forms() {
    assert_eq!(pattern("/a/b"), PathPattern::Exact("/a/b".into()));
    assert_eq!(pattern("/a/b/**"), PathPattern::Subtree("/a/b".into()));
    assert_eq!(pattern("/**"), PathPattern::Subtree(String::new()));
    assert_eq!(pattern("**/.env"), PathPattern::Name(".env".into()));
    assert_eq!(pattern("**/*.tar.gz"), PathPattern::Extension(".tar.gz".into()));
}

#[test]
fn impossible_paths_are_refused_with_a_hint() {
    let deep = "/d".repeat(MAX_COMPONENTS + 1);
    let long = format!("/{}", "x".repeat(MAX_PATH_BYTES));
    let name = format!("/{}", "x".repeat(MAX_NAME_BYTES + 1));
    let cases = [
        "", "a/b", "./a", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\0b", "/a/*", "/a/*/b", "/a/**/b", "/a?",
        "~/x", "**", "**/", "**/a/b", "**/*", "**/*a", "**/*.", "**/*.*", "**/..", "**/a*", "/", &deep,
        &long, &name, "/../**", "//**", "**/\0",
    ];
    for case in cases {
        let error = PathPattern::parse(case).expect_err(case);
        assert!(!error.problem.is_empty() && !error.hint.is_empty());
    }
    assert!(PathPattern::parse(&"/d".repeat(MAX_COMPONENTS)).is_ok());
}

#[test]
fn the_most_specific_decides() {
    let order = ["/**", "/srv/**", "/srv/a/**", "**/*.gz", "**/*.tar.gz", "**/a.tar.gz", "/srv/a/a.tar.gz"];
    for pair in order.windows(2) {
        assert!(pattern(pair[0]).specificity() < pattern(pair[1]).specificity(), "{pair:?}");
    }
}

#[test]
fn a_subtree_ends_at_a_component() {
    let tree = pattern("/srv/app/**");
    assert!(tree.matches("/srv/app") && tree.matches("/srv/app/x/y"));
    assert!(!tree.matches("/srv/application") && !tree.matches("/srv"));
    assert!(!tree.covers(&pattern("/srv/application/**")));
    assert!(pattern("**/*.pem").matches("/x/.pem"));
}

fn any_pattern() -> impl Strategy<Value = PathPattern> {
    let name = "[ab](\\.[ab]){0,2}";
    let path = proptest::collection::vec(name, 1..4).prop_map(|parts| format!("/{}", parts.join("/")));
    prop_oneof![
        path.clone().prop_map(PathPattern::Exact),
        path.prop_map(PathPattern::Subtree),
        Just(PathPattern::Subtree(String::new())),
        name.prop_map(PathPattern::Name),
        "(\\.[ab]){1,2}".prop_map(PathPattern::Extension),
    ]
}

proptest! {
    #[test]
    fn parse_is_total(text in "\\PC{0,80}") {
        if let Ok(pattern) = PathPattern::parse(&text) {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn text_round_trip(pattern in any_pattern()) {
        prop_assert_eq!(PathPattern::parse(&pattern.to_string()), Ok(pattern));
    }

    #[test]
    fn covers_agrees_with_matches(
        a in any_pattern(), b in any_pattern(),
        parts in proptest::collection::vec("[ab](\\.[ab]){0,2}", 1..4),
    ) {
        let path = format!("/{}", parts.join("/"));
        if a.covers(&b) && b.matches(&path) {
            prop_assert!(a.matches(&path), "{} covers {} but not {}", a, b, path);
        }
        if a.matches(&path) && b.matches(&path) {
            prop_assert!(a.overlaps(&b) && b.overlaps(&a), "{} {} {}", a, b, path);
        }
        if a.covers(&b) {
            prop_assert!(a.specificity() <= b.specificity(), "{} covers {}", a, b);
        }
    }
}
