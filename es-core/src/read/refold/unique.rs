//! The values of unique fields while a history is folded again.

use std::collections::HashMap;

use crate::read::read_model::{FieldValue, Taken};

/// A value of a field.
pub(super) type Value = (&'static str, FieldValue);

/// Whose each value is.
#[derive(Debug, Default)]
pub(super) struct Owners {
    of_value: HashMap<Value, String>,
    of_key: HashMap<String, Vec<Value>>,
}

impl Owners {
    /// Gives the `documents` of one event, by their keys, the values that they have after it; they may have exchanged theirs. Those that
    /// would get the value of another document are returned, and keep what they had.
    pub(super) fn settle(&mut self, mut documents: Vec<(String, Vec<Value>)>) -> Vec<Taken> {
        let former: Vec<_> = documents.iter().map(|(key, _)| self.of_key.remove(key).unwrap_or_default()).collect();
        for value in former.iter().flatten() {
            self.of_value.remove(value);
        }
        let mut taken: Vec<Taken> = Vec::new();
        while let Some((nth, conflict)) = self.conflict(&documents, &taken) {
            documents[nth].1.clone_from(&former[nth]);
            taken.push(conflict);
        }
        for (key, values) in documents {
            for value in &values {
                self.of_value.insert(value.clone(), key.clone());
            }
            self.of_key.insert(key, values);
        }
        taken
    }

    /// The first of `documents` that would get the value of another one, and is not among the `known`.
    fn conflict(&self, documents: &[(String, Vec<Value>)], known: &[Taken]) -> Option<(usize, Taken)> {
        let is_known = |key: &str| known.iter().any(|taken| taken.key == key);
        let mut claims: HashMap<&Value, &str> = HashMap::new();
        let (kept, claimed): (Vec<_>, Vec<_>) = (0..documents.len()).partition(|nth| is_known(&documents[*nth].0));
        for nth in kept.into_iter().chain(claimed) {
            let (key, values) = &documents[nth];
            for value in values {
                // What is kept is nobody else's, and comes before what another one would get.
                let other = self.of_value.get(value).map(String::as_str).or_else(|| claims.insert(value, key));
                if let Some(other) = other {
                    let (field, key, other) = (value.0.to_owned(), key.clone(), other.to_owned());
                    return Some((nth, Taken { field, key, other }));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(numbers: &[i64]) -> Vec<Value> {
        numbers.iter().map(|number| ("number", FieldValue { number: *number, text: String::new() })).collect()
    }

    fn settle(owners: &mut Owners, documents: &[(&str, &[i64])]) -> Vec<(String, String)> {
        let documents = documents.iter().map(|(key, numbers)| ((*key).to_owned(), values(numbers))).collect();
        owners.settle(documents).into_iter().map(|taken| (taken.key, taken.other)).collect()
    }

    #[test]
    fn r11_a_value_is_one_documents_until_that_one_has_another() {
        let mut owners = Owners::default();
        let taken = |key: &str, other: &str| (key.to_owned(), other.to_owned());
        assert_eq!(settle(&mut owners, &[("a", &[1]), ("b", &[2])]), []);
        assert_eq!(settle(&mut owners, &[("a", &[2]), ("b", &[1])]), [], "they exchange theirs");
        assert_eq!(settle(&mut owners, &[("c", &[1])]), [taken("c", "b")]);
        assert_eq!(settle(&mut owners, &[("b", &[3])]), [], "it has left it");
        assert_eq!(settle(&mut owners, &[("c", &[1])]), []);
        assert_eq!(settle(&mut owners, &[("d", &[4]), ("e", &[4])]), [taken("e", "d")]);
        // `a` keeps 2, which `d` would have got of it.
        assert_eq!(settle(&mut owners, &[("d", &[2]), ("a", &[1])]), [taken("a", "c"), taken("d", "a")]);
        assert_eq!(settle(&mut owners, &[("f", &[2])]), [taken("f", "a")]);
    }
}
