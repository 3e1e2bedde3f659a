//! Puts many mutants into one source text, each behind a switch.

use std::collections::BTreeMap;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, Pat, Signature};

use crate::mutants::list::{Mutant, Place};

/// What the changed crate gets: whether a mutant, by its number, is the one of this process. In a process without a mutant it
/// writes down which ones it is asked for.
pub(super) const SWITCH: &str = r#"
#[doc(hidden)]
pub mod mutant {
    use std::sync::{LazyLock, Mutex};
    static ON: LazyLock<usize> = LazyLock::new(|| std::env::var("MUTANT").map_or(0, |on| on.parse().unwrap()));
    static ASKED: Mutex<std::collections::BTreeSet<usize>> = Mutex::new(std::collections::BTreeSet::new());
    static FILE: LazyLock<Option<std::fs::File>> =
        LazyLock::new(|| Some(std::fs::File::create(std::env::var_os("MUTANTS_ASKED")?).unwrap()));
    pub fn is(number: usize) -> bool {
        if let Some(file) = &*FILE && ASKED.lock().unwrap().insert(number) {
            std::io::Write::write_all(&mut &*file, format!("{number}\n").as_bytes()).unwrap();
        }
        *ON == number
    }
}
"#;

/// A source text with its mutants.
#[derive(Debug, Default)]
pub(super) struct Woven {
    pub(super) text: String,
    /// Where each mutant is in the text.
    mutants: Vec<(Range<usize>, usize)>,
    /// Where the text goes on with the source: a place in the text, and the one in the source.
    sources: Vec<(usize, usize)>,
}

impl Woven {
    /// Puts those of `mutants` (all of one file, with their numbers) that can be switched at run time into `source`. The
    /// numbers of the others are returned as well: they are in constants, or the type of the function is that of its body.
    pub(super) fn new(source: &str, mutants: &[(usize, &Mutant)]) -> syn::Result<(Self, Vec<usize>)> {
        let file = syn::parse_file(source)?;
        let mut places: BTreeMap<(&str, Place), Vec<(usize, &Mutant)>> = BTreeMap::new();
        for (number, mutant) in mutants {
            places.entry((&mutant.genre, mutant.span.start)).or_default().push((*number, mutant));
        }
        let mut weaver = Weaver { source, places, inserts: Vec::new() };
        weaver.visit_file(&file);
        let left = weaver.places.values().flatten().map(|(number, _)| *number).collect();
        // What begins at a place comes after what ends there; else in the order of the visit, which is that of the nesting.
        weaver.inserts.sort_by_key(|insert| (insert.at, !insert.closes));
        let mut woven = Self::default();
        let mut from = 0;
        for Insert { at, parts, .. } in weaver.inserts {
            woven.go_on(&source[from..at], from);
            from = at;
            for (text, mutant) in parts {
                let start = woven.text.len();
                woven.text += &text;
                woven.mutants.extend(mutant.map(|number| (start..woven.text.len(), number)));
            }
        }
        woven.go_on(&source[from..], from);
        Ok((woven, left))
    }

    fn go_on(&mut self, source: &str, from: usize) {
        self.sources.push((self.text.len(), from));
        self.text += source;
    }

    /// The mutant that the place in the text belongs to.
    pub(super) fn mutant(&self, place: &Range<usize>) -> Option<usize> {
        let is_there = |(range, _): &&(Range<usize>, _)| range.start <= place.start && place.end <= range.end;
        self.mutants.iter().find(is_there).map(|(_, number)| *number)
    }

    /// The line of the source that the place in the text is on.
    pub(super) fn line(&self, source: &str, place: usize) -> usize {
        let after = self.sources.partition_point(|(text, _)| *text <= place);
        let (text, from) = self.sources[after.saturating_sub(1)];
        source[..source.len().min(from + place - text)].matches('\n').count() + 1
    }
}

/// A text that is put into the source, and the mutants that its parts belong to.
struct Insert {
    at: usize,
    /// Whether it ends what another one begins.
    closes: bool,
    parts: Vec<(String, Option<usize>)>,
}

struct Weaver<'a> {
    source: &'a str,
    /// The mutants that are not put in, by what and where they are.
    places: BTreeMap<(&'a str, Place), Vec<(usize, &'a Mutant)>>,
    inserts: Vec<Insert>,
}

impl<'a> Weaver<'a> {
    fn take(&mut self, genre: &'static str, at: &impl Spanned) -> Vec<(usize, &'a Mutant)> {
        let start = at.span().start();
        self.places.remove(&(genre, Place { line: start.line, column: start.column + 1 })).unwrap_or_default()
    }

    fn text(&self, node: &impl Spanned) -> &'a str {
        &self.source[node.span().byte_range()]
    }

    fn insert(&mut self, at: usize, closes: bool, text: &str, mutant: Option<usize>) {
        self.inserts.push(Insert { at, closes, parts: vec![(text.to_owned(), mutant)] });
    }

    /// Puts the variants of an expression before it. Only its own text gets mutants: no two are on at once.
    fn choose(&mut self, whole: Range<usize>, variants: Vec<(usize, String)>, inner: impl FnOnce(&mut Self)) {
        if variants.is_empty() {
            return inner(self);
        }
        let mut parts = vec![("(".to_owned(), None)];
        for (number, text) in variants {
            parts.push((format!("if crate::mutant::is({number}) {{ "), None));
            parts.push((text, Some(number)));
            parts.push((" } else ".to_owned(), None));
        }
        parts.push(("{ ".to_owned(), None));
        self.inserts.push(Insert { at: whole.start, closes: false, parts });
        inner(self);
        self.insert(whole.end, true, " })", None);
    }

    fn function(&mut self, signature: &Signature, block: &'a Block) {
        if signature.constness.is_some() {
            return;
        }
        if let Some(first) = block.stmts.first() {
            let output = self.text(&signature.output);
            let values = if output.contains("impl ") { Vec::new() } else { self.take("FnValue", first) };
            for (number, mutant) in values {
                let text = format!(" if crate::mutant::is({number}) {{ return {}; }}", mutant.replacement);
                self.insert(block.brace_token.span.open().byte_range().end, false, &text, Some(number));
            }
        }
        self.visit_block(block);
    }
}

impl<'a> Visit<'a> for Weaver<'a> {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        let whole = expr.span().byte_range();
        let mut variants = Vec::new();
        match expr {
            Expr::Binary(binary) if !(matches!(binary.op, BinOp::And(_)) && has_let(expr)) => {
                let (left, right) = (self.text(&binary.left), self.text(&binary.right));
                for (number, mutant) in self.take("BinaryOperator", &binary.op) {
                    variants.push((number, format!("({left}) {} ({right})", mutant.replacement)));
                }
            }
            Expr::Unary(unary) => {
                let operand = self.text(&unary.expr);
                variants.extend(self.take("UnaryOperator", &unary.op).iter().map(|(n, _)| (*n, operand.to_owned())));
            }
            Expr::Struct(value) => {
                for pair in value.fields.pairs() {
                    for (number, _) in self.take("StructField", *pair.value()) {
                        // With its comma.
                        let field = pair.span().byte_range();
                        let text = [&self.source[whole.start..field.start], &self.source[field.end..whole.end]];
                        variants.push((number, text.concat()));
                    }
                }
            }
            _ => {}
        }
        self.choose(whole, variants, |weaver| visit::visit_expr(weaver, expr));
    }

    fn visit_arm(&mut self, arm: &'a syn::Arm) {
        let deleted = self.take("MatchArm", arm);
        let keeps: Vec<_> = deleted.iter().map(|(number, _)| format!("!crate::mutant::is({number})")).collect();
        let (keeps, number) = (keeps.join(" && "), deleted.first().map(|(number, _)| *number));
        if let Pat::Guard(pat) = &arm.pat {
            let range = pat.guard.span().byte_range();
            if number.is_some() {
                self.insert(range.start, false, &format!("{keeps} && ("), number);
            }
            let guards = self.take("MatchArmGuard", &pat.guard);
            let variants = guards.iter().map(|(number, mutant)| (*number, mutant.replacement.clone())).collect();
            self.choose(range.clone(), variants, |weaver| weaver.visit_expr(&pat.guard));
            if number.is_some() {
                self.insert(range.end, true, ")", None);
            }
        } else if number.is_some() {
            self.insert(arm.pat.span().byte_range().end, false, &format!(" if {keeps}"), number);
        }
        self.visit_expr(&arm.body);
    }

    // What the compiler computes has no switch.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'a syn::TraitItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'a syn::ItemEnum) {}
    fn visit_expr_const(&mut self, _: &'a syn::ExprConst) {}
    fn visit_type(&mut self, _: &'a syn::Type) {}
    fn visit_path(&mut self, _: &'a syn::Path) {}
    fn visit_pat(&mut self, _: &'a Pat) {}
    fn visit_expr_repeat(&mut self, repeat: &'a syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }
}

/// Whether it is a chain with `let`, which is no expression by itself.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with one mutant, at the first place of `at`.
    fn woven(source: &str, genre: &str, at: &str, replacement: &str) -> Option<(Woven, String)> {
        let column = source.find(at).expect("it is there") + 1;
        let mutant = Mutant::at(genre, Place { line: 1, column }, replacement);
        let (woven, left) = Woven::new(source, &[(7, &mutant)]).expect("Rust");
        syn::parse_file(&woven.text).expect("Rust");
        let text = woven.text.replace("crate::mutant::is(7)", "on");
        left.is_empty().then_some((woven, text))
    }

    #[test]
    fn each_kind_of_mutant_is_behind_a_switch() {
        let text = |source, genre, at, replacement| woven(source, genre, at, replacement).expect("a switch").1;
        assert_eq!(
            text("fn f() -> bool { a < b + 1 }", "BinaryOperator", "<", "=="),
            "fn f() -> bool { (if on { (a) == (b + 1) } else { a < b + 1 }) }"
        );
        assert_eq!(text("fn f() { if !a {} }", "UnaryOperator", "!", ""), "fn f() { if (if on { a } else { !a }) {} }");
        assert_eq!(text("fn f() -> u8 { 1 }", "FnValue", "1", "0"), "fn f() -> u8 { if on { return 0; } 1 }");
        assert_eq!(
            text("fn f() { X { a: 1, ..y } }", "StructField", "a:", ""),
            "fn f() { (if on { X {  ..y } } else { X { a: 1, ..y } }) }"
        );
        assert_eq!(
            text("fn f() { match x { Y => 1, _ => 2 } }", "MatchArm", "Y", ""),
            "fn f() { match x { Y if !on => 1, _ => 2 } }"
        );
        assert_eq!(
            text("fn f() { match x { Y if z => 1, _ => 2 } }", "MatchArm", "Y", ""),
            "fn f() { match x { Y if !on && (z) => 1, _ => 2 } }"
        );
        assert_eq!(
            text("fn f() { match x { Y if z => 1, _ => 2 } }", "MatchArmGuard", "z", "true"),
            "fn f() { match x { Y if (if on { true } else { z }) => 1, _ => 2 } }"
        );
    }

    #[test]
    fn what_the_compiler_computes_has_no_switch() {
        for source in ["const A: u8 = 1 * 2;", "const fn f() -> u8 { 1 * 2 }", "fn f() { [0; 1 * 2] }"] {
            assert!(woven(source, "BinaryOperator", "*", "+").is_none(), "{source}");
        }
        // One branch of it would have to be of the type of the other.
        assert!(woven("fn f() -> impl Iterator { x }", "FnValue", "x", "y").is_none());
        assert!(woven("fn f() { if let a = b && c {} }", "BinaryOperator", "&&", "||").is_none());
    }

    #[test]
    fn nested_mutants_are_in_the_text_of_the_source_only() {
        let source = "fn f() { !(a < b) && c }";
        let at = |at: &str| Place { line: 1, column: source.find(at).expect("it is there") + 1 };
        let mutants = [("UnaryOperator", "!", ""), ("BinaryOperator", "<", ">"), ("BinaryOperator", "&&", "||")]
            .map(|(genre, place, replacement)| Mutant::at(genre, at(place), replacement));
        let numbered: Vec<_> = mutants.iter().enumerate().collect();
        let (woven, left) = Woven::new(source, &numbered).expect("Rust");
        assert!(left.is_empty());
        syn::parse_file(&woven.text).expect("Rust");
        assert_eq!(woven.text.matches("crate::mutant::is").count(), 3);
        let place = woven.text.find("(a) > (b)").expect("it is there");
        assert_eq!(woven.mutant(&(place..place + 3)), Some(1));
        let end = woven.text.rfind("c }").expect("it is there");
        assert_eq!(woven.mutant(&(end..end + 1)), None);
        assert_eq!(woven.line(source, end), 1);
    }
}
