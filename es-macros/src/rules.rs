//! Which categories, wire names and versions are valid.

use std::collections::HashSet;

use syn::{ExprPath, LitInt, LitStr};

use crate::input::Errors;

/// Same limits as `es_core::StreamId`.
const MAX_CATEGORY_BYTES: usize = 64;
const RESERVED_PREFIX: &str = "es_";
const MAX_NAME_BYTES: usize = 128;
/// How many versions without an upcaster are named at once.
const MOST_NAMED: usize = 8;

/// Same limit as `es_core::Tag`.
const MAX_TAG_BYTES: usize = 255;

/// `1 = path::to::function`: how an old version becomes the current one.
pub(crate) struct Upcaster {
    pub(crate) literal: LitInt,
    pub(crate) from: u32,
    pub(crate) function: ExprPath,
}

pub(crate) fn check_upcasters(upcasters: &[Upcaster], current: u32, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for Upcaster { literal, from, .. } in upcasters {
        if *from == 0 {
            errors.at(literal, "schema versions start at 1; remove this upcaster");
        } else if *from >= current {
            let next = from.saturating_add(1);
            errors.at(
                literal,
                format!(
                    "an upcaster reads an old version, and {current} is the current one; write \
                     `version = {next}` if version {from} is old, or remove the upcaster"
                ),
            );
        }
        if !seen.insert(from) {
            errors.at(literal, format!("version {from} has two upcasters; keep one"));
        }
    }
}

/// Every version before the current one needs an upcaster, since the log may hold events of it for ever.
pub(crate) fn check_chain(upcasters: &[Upcaster], version: &LitInt, current: u32, errors: &mut Errors) {
    let is_missing = |old: &u32| upcasters.iter().all(|upcaster| upcaster.from != *old);
    let missing: Vec<u32> = (1..current).filter(is_missing).take(MOST_NAMED).collect();
    let Some(first) = missing.first() else { return };
    let advice = missing.iter().map(|old| format!("{old} = from_v{old}")).collect::<Vec<_>>().join(", ");
    let place = if upcasters.is_empty() {
        format!("write `upcast({advice})`")
    } else {
        format!("add `{advice}` to `upcast(…)`")
    };
    errors.at(
        version,
        format!(
            "version {first} has no upcaster, and the log may hold events of every version before {current}; \
             {place}, with a `fn from_v{first}(old: Old) -> Self` where `Old` has the fields of that version"
        ),
    );
}

pub(crate) fn check_category(literal: &LitStr, errors: &mut Errors) {
    let category = literal.value();
    let rule = if category.len() > MAX_CATEGORY_BYTES {
        format!("a category has at most {MAX_CATEGORY_BYTES} bytes; write a shorter one")
    } else if category.starts_with(RESERVED_PREFIX) {
        format!("categories that start with `{RESERVED_PREFIX}` belong to the framework; write another prefix")
    } else if !category.starts_with(|first: char| first.is_ascii_lowercase()) || !is_word(&category) {
        "a category is a lower-case letter, then lower-case letters, digits and `_`; write for \
         example `category = \"order\"`"
            .to_owned()
    } else {
        return;
    };
    errors.at(literal, format!("{category:?} cannot be a category: {rule}"));
}

pub(crate) fn check_name(literal: &LitStr, errors: &mut Errors) {
    let name = literal.value();
    let rule = if name.len() > MAX_NAME_BYTES {
        format!("a wire name has at most {MAX_NAME_BYTES} bytes; write a shorter one")
    } else if !name.split('.').all(is_word) {
        "a wire name is words of lower-case letters, digits and `_`, joined by dots; write for \
         example `name = \"order.placed\"`"
            .to_owned()
    } else {
        return;
    };
    errors.at(literal, format!("{name:?} cannot be a wire name: {rule}"));
}

/// Checks what is known of a tag before there is an event: `fixed`, and whether fields make it `longer`.
pub(crate) fn check_tag(literal: &LitStr, fixed: &str, longer: bool, errors: &mut Errors) {
    let rule = if fixed.is_empty() && !longer {
        "it is empty; write what the event is about, for example `tag = \"room:{room}\"`"
    } else if fixed.chars().any(char::is_control) {
        "it holds a control character; leave that out"
    } else if fixed.len() > MAX_TAG_BYTES {
        "a tag has at most 255 bytes; write a shorter one"
    } else {
        return;
    };
    errors.at(literal, format!("this cannot be a tag: {rule}"));
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
