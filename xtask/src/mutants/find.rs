//! Finds the places of a source file where a bug can be put in, and the text that puts it behind a switch.
//!
//! Nothing is printed from the syntax tree: the edits are insertions into the file as it stands, so that operands are
//! never duplicated and an error of the compiler can be traced to the mutation that caused it.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ReturnType, Stmt, Type};

use super::edit::{Edit, Group};

/// The switch, as the instrumented copy calls it.
const ON: &str = "::agent_monitor_ebpf::mutant::on";

/// Closures of these methods return a truth value.
const PREDICATES: &[&str] = &[
    "all",
    "any",
    "extract_if",
    "filter",
    "find",
    "is_none_or",
    "is_some_and",
    "is_ok_and",
    "position",
    "retain",
    "skip_while",
    "take_while",
];

/// One deliberate bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// Number of its switch, from 1
    pub(crate) id: u32,
    /// Path from the root of the work tree
    pub(crate) file: String,
    pub(crate) line: usize,
    /// What it changes, the same on every line of the file: the key of the list of accepted survivors
    pub(crate) key: String,
}

/// What one file offers.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) mutants: Vec<Mutant>,
    pub(crate) groups: Vec<Group>,
}

/// Finds the mutations of a file; their numbers begin with `first`.
///
/// `plain` names `const fn`s that nothing constant calls: in the copy they lose their `const`.
pub(crate) fn find(path: &str, text: &str, first: u32, plain: &[String]) -> Result<Found> {
    let file = syn::parse_file(text).with_context(|| format!("cannot parse {path}"))?;
    let mut finder = Finder {
        path,
        text,
        next: first,
        plain,
        functions: Vec::new(),
        seen: BTreeMap::new(),
        found: Found::default(),
    };
    finder.visit_file(&file);
    Ok(finder.found)
}

/// Which constant takes the place of a condition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Constant {
    True,
    False,
    /// Both, each with a switch of its own
    Both,
}

struct Finder<'a> {
    path: &'a str,
    text: &'a str,
    next: u32,
    plain: &'a [String],
    functions: Vec<String>,
    /// How often a key was given, since two places of a function may read the same
    seen: BTreeMap<String, usize>,
    found: Found,
}

impl Finder<'_> {
    fn group(&mut self) -> usize {
        self.found.groups.push(Group { edits: Vec::new(), mutants: Vec::new() });
        self.found.groups.len() - 1
    }

    fn mutant(&mut self, group: usize, at: Range<usize>, change: &str) -> u32 {
        let id = self.next;
        self.next += 1;
        let function = self.functions.last().map_or("file", String::as_str);
        let short: String = self.source(&at).split_whitespace().collect::<Vec<_>>().join(" ");
        let short = if short.chars().count() > 60 {
            format!("{}...", short.chars().take(60).collect::<String>())
        } else {
            short
        };
        let key = format!("{function}: `{short}` {change}");
        let times = self.seen.entry(key.clone()).or_default();
        *times += 1;
        let key = if *times > 1 { format!("{key} (#{times})") } else { key };
        let line = self.text[..at.start].matches('\n').count() + 1;
        self.found.mutants.push(Mutant { id, file: self.path.to_string(), line, key });
        self.found.groups[group].mutants.push(id);
        id
    }

    fn source(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    fn edit(&mut self, group: usize, edit: Edit) {
        self.found.groups[group].edits.push(edit);
    }

    fn wrap(&mut self, group: usize, range: &Range<usize>, open: String, close: String) {
        self.edit(group, Edit::Open { at: range.start, text: open });
        self.edit(group, Edit::Close { at: range.end, text: close });
    }

    /// A condition becomes a constant. What has mutations of its own is left to these, unless it is a whole operand.
    fn condition(&mut self, expr: &Expr, constant: Constant) {
        match expr {
            Expr::Paren(inner) => return self.condition(&inner.expr, constant),
            Expr::Let(_) | Expr::Lit(_) | Expr::Block(_) => return,
            Expr::Binary(binary)
                if matches!(binary.op, BinOp::And(_) | BinOp::Or(_))
                    && (has_let(expr) || constant == Constant::Both) =>
            {
                return;
            }
            Expr::Binary(binary) if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) => {}
            Expr::Binary(_) | Expr::Unary(_) if constant == Constant::Both => return,
            _ => {}
        }
        let range = span(expr);
        let group = self.group();
        let open = match constant {
            Constant::True => format!("({ON}({}) || (", self.mutant(group, range.clone(), "-> true")),
            Constant::False => format!("(!{ON}({}) && (", self.mutant(group, range.clone(), "-> false")),
            Constant::Both => {
                let (yes, no) = (
                    self.mutant(group, range.clone(), "-> true"),
                    self.mutant(group, range.clone(), "-> false"),
                );
                format!("({ON}({yes}) || !{ON}({no}) && (")
            }
        };
        self.wrap(group, &range, open, "))".to_string());
    }

    fn swap_logic(&mut self, binary: &syn::ExprBinary, and: bool) {
        let (left, right) = (span(&binary.left), span(&binary.right));
        let group = self.group();
        let change = if and { "&& -> ||" } else { "|| -> &&" };
        let id = self.mutant(group, left.start..right.end, change);
        let test = if and { "!=" } else { "==" };
        self.wrap(
            group,
            &(left.start..right.end),
            "(match (".to_string(),
            " } else { mutant_l } })".to_string(),
        );
        let text = format!(") {{ mutant_l => if mutant_l {test} {ON}({id}) {{ ");
        self.edit(group, Edit::Replace { range: left.end..right.start, text });
    }

    /// Other operators between the same operands, which are evaluated once.
    fn operators(&mut self, binary: &syn::ExprBinary, op: &str, others: &[&str], by_reference: bool) {
        let (left, right) = (span(&binary.left), span(&binary.right));
        let whole = left.start..right.end;
        let group = self.group();
        let mut arms = String::new();
        for other in others {
            let id = self.mutant(group, whole.clone(), &format!("{op} -> {other}"));
            arms.push_str(&format!("if {ON}({id}) {{ mutant_l {other} mutant_r }} else "));
        }
        let (open, middle) = if by_reference { ("(match (&(", "), &(") } else { ("(match ((", "), (") };
        let close = format!(")) {{ (mutant_l, mutant_r) => {arms}{{ mutant_l {op} mutant_r }} }})");
        self.wrap(group, &whole, open.to_string(), close);
        self.edit(group, Edit::Replace { range: left.end..right.start, text: middle.to_string() });
    }

    fn literal(&mut self, expr: &Expr) {
        let Expr::Lit(literal) = expr else { return };
        if !matches!(literal.lit, syn::Lit::Int(_)) {
            return;
        }
        let range = span(expr);
        let group = self.group();
        let text = self.source(&range).to_string();
        let id = self.mutant(group, range.clone(), "+ 1");
        self.wrap(group, &range, format!("(if {ON}({id}) {{ {text} + 1 }} else {{ "), " })".to_string());
    }

    /// A statement that does not happen.
    fn delete(&mut self, expr: &Expr, semicolon: &str) {
        let range = span(expr);
        let group = self.group();
        let id = self.mutant(group, range.clone(), "deleted");
        self.wrap(group, &range, format!("if !{ON}({id}) {{ "), format!("{semicolon} }}"));
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let at = block.brace_token.span.open().byte_range().end;
        let whole = block.span().byte_range();
        let now: String = self.source(&whole).chars().filter(|c| !c.is_whitespace()).collect();
        if block.stmts.is_empty() {
            return;
        }
        let name = signature.span().byte_range();
        for value in values(&signature.output) {
            if now == format!("{{{}}}", value.replace(' ', "")) {
                continue;
            }
            let group = self.group();
            let shown =
                if value.is_empty() { "does nothing".to_string() } else { format!("returns {value}") };
            let id = self.mutant(group, name.clone(), &shown);
            self.edit(group, Edit::Open { at, text: format!(" if {ON}({id}) {{ return {value}; }} ") });
        }
    }

    fn function(&mut self, attrs: &[syn::Attribute], signature: &syn::Signature, block: &syn::Block) {
        if is_test(attrs) {
            return;
        }
        let name = signature.ident.to_string();
        if let Some(token) = signature.constness {
            if !self.plain.contains(&name) {
                return;
            }
            // Not behind a switch: without it nothing in the function could be.
            let group = self.group();
            self.edit(group, Edit::Replace { range: token.span.byte_range(), text: String::new() });
        }
        self.functions.push(name);
        self.body(signature, block);
        self.visit_block(block);
        self.functions.pop();
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.attrs, &item.sig, block);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        // What is printed for debugging is no promise.
        let debug = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        if !is_test(&item.attrs) && debug.is_none_or(|segment| segment.ident != "Debug") {
            visit::visit_item_impl(self, item);
        }
    }

    // Constants are evaluated by the compiler, where there are no switches.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_variant(&mut self, _: &'ast syn::Variant) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_expr_repeat(&mut self, expr: &'ast syn::ExprRepeat) {
        self.visit_expr(&expr.expr);
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        match binary.op {
            BinOp::And(_) | BinOp::Or(_) => {
                let and = matches!(binary.op, BinOp::And(_));
                if !has_let(&binary.left) && !has_let(&binary.right) {
                    self.swap_logic(binary, and);
                }
                let neutral = if and { Constant::True } else { Constant::False };
                for side in [&binary.left, &binary.right] {
                    // A chain is parsed to the left: its operands are visited one by one.
                    if !matches!(&**side, Expr::Binary(inner) if std::mem::discriminant(&inner.op) == std::mem::discriminant(&binary.op))
                    {
                        self.condition(side, neutral);
                    }
                }
            }
            BinOp::Eq(_) => self.operators(binary, "==", &["!="], true),
            BinOp::Ne(_) => self.operators(binary, "!=", &["=="], true),
            BinOp::Lt(_) => self.operators(binary, "<", &["<=", ">="], true),
            BinOp::Le(_) => self.operators(binary, "<=", &["<", ">"], true),
            BinOp::Gt(_) => self.operators(binary, ">", &[">=", "<="], true),
            BinOp::Ge(_) => self.operators(binary, ">=", &[">", "<"], true),
            BinOp::Add(_) => self.operators(binary, "+", &["-"], false),
            BinOp::Sub(_) => self.operators(binary, "-", &["+"], false),
            BinOp::BitAnd(_) => self.operators(binary, "&", &["|"], false),
            BinOp::BitOr(_) => self.operators(binary, "|", &["&"], false),
            _ => {}
        }
        self.literal(&binary.left);
        self.literal(&binary.right);
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        if let syn::UnOp::Not(bang) = unary.op {
            let (whole, bang) = (unary.span().byte_range(), bang.span().byte_range());
            let group = self.group();
            let id = self.mutant(group, whole.clone(), "without !");
            self.edit(group, Edit::Replace { range: bang, text: "(match (".to_string() });
            let text = format!(") {{ mutant_v => if {ON}({id}) {{ mutant_v }} else {{ !mutant_v }} }})");
            self.edit(group, Edit::Close { at: whole.end, text });
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        let plain = branch.else_branch.is_none();
        if !has_let(&branch.cond) {
            self.condition(&branch.cond, Constant::Both);
            let own = matches!(
                &*branch.cond,
                Expr::Binary(_) | Expr::Unary(syn::ExprUnary { op: syn::UnOp::Not(_), .. })
            );
            if plain && own {
                self.condition(&branch.cond, Constant::False);
            }
        } else if plain {
            let range = span(&branch.cond);
            let group = self.group();
            let id = self.mutant(group, range.clone(), "never");
            self.edit(group, Edit::Open { at: range.start, text: format!("!{ON}({id}) && ") });
        }
        visit::visit_expr_if(self, branch);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let Some((_, guard)) = &arm.guard
            && !has_let(guard)
        {
            let range = span(guard);
            let group = self.group();
            let id = self.mutant(group, range.clone(), "guard deleted");
            self.wrap(group, &range, format!("({ON}({id}) || ("), "))".to_string());
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if PREDICATES.iter().any(|name| call.method == name)
            && let Some(Expr::Closure(closure)) = call.args.first()
        {
            self.condition(&closure.body, Constant::Both);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_range(&mut self, range: &'ast syn::ExprRange) {
        range.start.iter().chain(&range.end).for_each(|bound| self.literal(bound));
        visit::visit_expr_range(self, range);
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt {
            match expr {
                Expr::Assign(_) => self.delete(expr, ";"),
                Expr::Binary(binary) if is_assignment(&binary.op) => self.delete(expr, ";"),
                _ if is_call(expr) => self.delete(expr, ";"),
                _ => {}
            }
        }
        visit::visit_stmt(self, stmt);
    }
}

fn span(expr: &Expr) -> Range<usize> {
    expr.span().byte_range()
}

/// A chain with `let` binds names for what follows: it must stay as it is.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

fn is_call(expr: &Expr) -> bool {
    match expr {
        // To drop a guard late is a deadlock or nothing.
        Expr::Call(call) => !matches!(&*call.func, Expr::Path(path) if path.path.is_ident("drop")),
        Expr::MethodCall(_) => true,
        Expr::Try(inner) => is_call(&inner.expr),
        Expr::Await(inner) => is_call(&inner.base),
        _ => false,
    }
}

fn is_assignment(op: &BinOp) -> bool {
    matches!(
        op,
        BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitXorAssign(_)
    )
}

fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("test")
            || attr.path().is_ident("cfg")
                && matches!(&attr.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test"))
    })
}

/// What a function may return instead, where the type alone shows it.
fn values(output: &ReturnType) -> Vec<&'static str> {
    match output {
        ReturnType::Default => vec![""],
        ReturnType::Type(_, of) => values_of(of),
    }
}

fn values_of(of: &Type) -> Vec<&'static str> {
    match of {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec![""],
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Vec::new() };
            let argument = match &last.arguments {
                syn::PathArguments::AngleBracketed(list) => list.args.first(),
                syn::PathArguments::None | syn::PathArguments::Parenthesized(_) => None,
            };
            match last.ident.to_string().as_str() {
                "bool" => vec!["true", "false"],
                "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" | "c_int" => vec!["0", "1"],
                "Option" => vec!["None"],
                "String" => vec!["String::new()"],
                "Vec" | "BTreeMap" | "BTreeSet" | "HashMap" | "HashSet" | "VecDeque" => {
                    vec!["Default::default()"]
                }
                "Result" => match argument {
                    Some(syn::GenericArgument::Type(inner)) => values_in_result(inner),
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn values_in_result(inner: &Type) -> Vec<&'static str> {
    let wrapped = |value: &'static str| match value {
        "" => Some("Ok(())"),
        "true" => Some("Ok(true)"),
        "false" => Some("Ok(false)"),
        "None" => Some("Ok(None)"),
        "String::new()" | "Default::default()" => Some("Ok(Default::default())"),
        _ => None,
    };
    values_of(inner).into_iter().filter_map(wrapped).collect()
}
