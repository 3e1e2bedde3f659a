//! The definition by which a read model is folded, as text that is stored with it.

use std::fmt::Write;

use crate::{
    event::{Categories, EventSet},
    read::{
        engine_error::EngineError,
        projection::{EventOrder, Projection},
        read_model::{DeclaredField, Progress},
    },
};

/// Whether `name` may be that of a projection or policy: it is part of consumer groups and metrics.
pub(crate) const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        index += 1;
    }
    !bytes.is_empty() && bytes.len() <= 64
}

/// `projection DailyRevenue of order, payment in per-key order`, and ` with day timestamp, total unique integer` if it has fields.
pub(crate) fn of_projection<P: Projection>() -> String {
    let categories = categories::<P::Event>();
    let order = match P::ORDER {
        EventOrder::PerStream => "per-stream",
        EventOrder::PerKey => "per-key",
    };
    format!("projection {} of {categories} in {order} order{}", type_name::<P>(), declared::<P>())
}

/// `order, payment`.
pub(crate) fn categories<E: EventSet>() -> String {
    match E::categories() {
        Categories::All => "all categories".to_owned(),
        Categories::Only(names) => {
            let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
            names.sort_unstable();
            names.join(", ")
        }
    }
}

/// ` with day timestamp, total unique integer` if the documents have fields.
fn declared<P: Projection>() -> String {
    let mut fields = String::new();
    for field in P::FIELDS {
        fields.push_str(if fields.is_empty() { " with " } else { ", " });
        let unique = if field.is_unique() { "unique " } else { "" };
        let _ = write!(fields, "{} {unique}{}", field.name(), field.kind().as_str());
    }
    fields
}

/// The fields of the projection's documents.
pub(crate) fn fields<P: Projection>() -> Vec<DeclaredField> {
    P::FIELDS.iter().map(|field| DeclaredField { name: field.name(), kind: field.kind() }).collect()
}

/// The name of `T` without its path and parameters.
pub(crate) fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split_once('<').map_or(name, |(name, _)| name);
    name.rsplit_once("::").map_or(name, |(_, name)| name)
}

/// Refuses to continue with what another definition of the same name has folded.
pub(crate) fn admit<'a>(
    name: &'static str,
    version: u32,
    ours: &str,
    found: impl IntoIterator<Item = &'a Progress>,
) -> Result<(), EngineError> {
    for Progress { generation, definition: stored, .. } in found {
        if kind(stored) != kind(ours) || (generation.version == version && stored != ours) {
            return Err(EngineError::OtherDefinition { name, stored: stored.clone(), ours: ours.to_owned() });
        }
    }
    Ok(())
}

/// What sort of reader a definition is of: its first word.
pub(crate) fn kind(definition: &str) -> &str {
    definition.split_once(' ').map_or(definition, |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        read::read_model::{Generation, Reader},
        stream::Position,
        testing::account::{Histories, Ledger},
    };

    #[test]
    fn names_follow_the_rule() {
        let longest = "a".repeat(64);
        for name in ["a", "daily-revenue", "0", &longest] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Daily", "daily revenue", "daily_revenue", "é", "a/b", &format!("{longest}a")] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_kept_for_the_kind_and_a_version_for_the_definition() {
        let stored = Progress {
            generation: Generation { reader: Reader { id: 1, name: "ledger".into() }, version: 1 },
            definition: "projection Ledger of account".into(),
            reached: Position::ZERO,
            furthest: Position::ZERO,
        };
        let admits = |version, ours: &str| admit("ledger", version, ours, [&stored]).is_ok();
        assert!(admits(1, "projection Ledger of account"));
        assert!(!admits(1, "projection Ledger of account, loan"));
        assert!(admits(2, "projection Ledger of account, loan"));
        assert!(!admits(2, "tables Ledger of account"));
    }

    #[test]
    fn definitions_name_type_categories_and_order() {
        assert_eq!(of_projection::<Ledger<2>>(), "projection Ledger of account in per-key order");
        assert_eq!(of_projection::<Histories>(), "projection Histories of account in per-stream order");
    }
}
