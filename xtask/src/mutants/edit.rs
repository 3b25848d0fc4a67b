//! Puts insertions into a text, and knows afterwards which of them stands where.

use std::ops::Range;

/// One insertion or replacement.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// Before what begins here; of several the outer one was made first
    Open { at: usize, text: String },
    /// Behind what ends here
    Close { at: usize, text: String },
    /// Instead of this, which nothing else touches
    Replace { range: Range<usize>, text: String },
}

impl Edit {
    fn start(&self) -> usize {
        match self {
            Self::Open { at, .. } | Self::Close { at, .. } => *at,
            Self::Replace { range, .. } => range.start,
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Open { at, .. } | Self::Close { at, .. } => *at,
            Self::Replace { range, .. } => range.end,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Open { text, .. } | Self::Close { text, .. } | Self::Replace { text, .. } => text,
        }
    }

    /// What ends at a byte comes before what begins there, and the inner one ends first.
    fn rank(&self, made: usize) -> (u8, isize) {
        let made = isize::try_from(made).unwrap_or(isize::MAX);
        match self {
            Self::Close { .. } => (0, -made),
            Self::Open { .. } => (1, made),
            Self::Replace { .. } => (2, made),
        }
    }
}

/// Edits that make sense only together, and the mutants that they carry.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) edits: Vec<Edit>,
    pub(crate) mutants: Vec<u32>,
}

/// A text with its edits.
#[derive(Debug)]
pub(crate) struct Edited {
    pub(crate) text: String,
    /// Bytes of the new text that each group spans, by its number
    pub(crate) spans: Vec<(usize, Range<usize>)>,
}

/// Applies the groups for which `wanted` is true.
pub(crate) fn apply(original: &str, groups: &[Group], wanted: impl Fn(usize) -> bool) -> Edited {
    let mut edits: Vec<(usize, usize, &Edit)> = Vec::new();
    for (number, group) in groups.iter().enumerate().filter(|(number, _)| wanted(*number)) {
        edits.extend(group.edits.iter().map(|edit| (number, 0, edit)));
    }
    for (made, entry) in edits.iter_mut().enumerate() {
        entry.1 = made;
    }
    edits.sort_by_key(|(_, made, edit)| (edit.start(), edit.rank(*made)));
    let (mut text, mut done) = (String::with_capacity(original.len() * 3), 0);
    let mut spans: Vec<Option<Range<usize>>> = vec![None; groups.len()];
    for (number, _, edit) in edits {
        text.push_str(original.get(done..edit.start()).unwrap_or_default());
        let from = text.len();
        text.push_str(edit.text());
        done = edit.end().max(done);
        let span = spans[number].get_or_insert(from..from);
        span.end = text.len();
    }
    text.push_str(original.get(done..).unwrap_or_default());
    let spans = spans.into_iter().enumerate().filter_map(|(number, span)| Some((number, span?)));
    Edited { spans: spans.collect(), text }
}

impl Edited {
    /// The groups around a byte, the innermost first.
    pub(crate) fn around(&self, bytes: &Range<usize>) -> Vec<usize> {
        let mut around: Vec<_> = self
            .spans
            .iter()
            .filter(|(_, span)| span.start <= bytes.start && bytes.end <= span.end)
            .collect();
        around.sort_by_key(|(_, span)| span.len());
        around.into_iter().map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::find;

    #[track_caller]
    fn check(body: &str, expect: &str) {
        let text = format!("fn f() -> T {{ {body} }}");
        let found = find::find("f.rs", &text, 1, &[]).unwrap();
        let edited =
            apply(&text, &found.groups, |_| true).text.replace("::agent_monitor_ebpf::mutant::on", "on");
        // What is inserted must be whole: it parses, and without any group it is the original.
        syn::parse_file(&edited).unwrap();
        assert_eq!(edited, format!("fn f() -> T {{ {expect} }}"));
        assert_eq!(apply(&text, &found.groups, |_| false).text, text);
    }

    #[test]
    fn operands_are_evaluated_once_and_nest() {
        check(
            "a(x) < b",
            "(match (&(a(x)), &(b)) { (mutant_l, mutant_r) => if on(1) { mutant_l <= mutant_r } else \
             if on(2) { mutant_l >= mutant_r } else { mutant_l < mutant_r } })",
        );
        check("!a", "(match (a) { mutant_v => if on(1) { mutant_v } else { !mutant_v } })");
        check(
            "a && b",
            "(match ((on(2) || (a))) { mutant_l => if mutant_l != on(1) { (on(3) || (b)) } else { mutant_l } })",
        );
    }

    #[test]
    fn a_chain_with_let_is_only_shortened() {
        check(
            "if let Some(x) = a && x { return; } y",
            "if !on(1) && let Some(x) = a && (on(2) || (x)) { return; } y",
        );
    }

    #[test]
    fn the_innermost_group_is_named_for_an_error() {
        let text = "fn f() -> T { a && b < 1 }";
        let found = find::find("f.rs", text, 1, &[]).unwrap();
        let edited = apply(text, &found.groups, |_| true);
        let at = edited.text.find("mutant_l <= mutant_r").unwrap();
        let first = edited.around(&(at..at + 3))[0];
        let named = found.mutants.iter().find(|mutant| mutant.id == found.groups[first].mutants[0]);
        assert_eq!(named.unwrap().key, "f: `b < 1` < -> <=");
    }
}
