//! Whose the values of unique fields are.

use std::collections::HashMap;

use super::Value;
use crate::read::read_model::Taken;

/// Whose each value is.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    of_value: HashMap<Value, String>,
    of_key: HashMap<String, Vec<Value>>,
}

impl Owners {
    /// A document as it is stored.
    pub(super) fn learn(&mut self, key: &str, values: Vec<Value>) {
        for value in &values {
            self.of_value.insert(value.clone(), key.to_owned());
        }
        self.of_key.insert(key.to_owned(), values);
    }

    /// The values of the document under `key`.
    pub(super) fn of(&self, key: &str) -> &[Value] {
        self.of_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// How many documents are known.
    pub(super) fn len(&self) -> usize {
        self.of_key.len()
    }

    /// Gives the `documents` of one event, by their keys, the values that they have after it; they may have exchanged theirs. Those that
    /// would get the value of another document are returned, and keep what they had.
    pub(crate) fn settle(&mut self, mut documents: Vec<(&str, Vec<Value>)>) -> Vec<Taken> {
        let former: Vec<_> = documents.iter().map(|(key, _)| self.of_key.remove(*key).unwrap_or_default()).collect();
        for value in former.iter().flatten() {
            self.of_value.remove(value);
        }
        let mut taken: Vec<Taken> = Vec::new();
        while let Some((nth, conflict)) = self.conflict(&documents, &taken) {
            documents[nth].1.clone_from(&former[nth]);
            taken.push(conflict);
        }
        for (key, values) in documents {
            self.learn(key, values);
        }
        taken
    }

    /// The first of `documents` that would get the value of another one, and is not among the `known`.
    fn conflict(&self, documents: &[(&str, Vec<Value>)], known: &[Taken]) -> Option<(usize, Taken)> {
        let is_known = |key: &str| known.iter().any(|taken| taken.key == key);
        let mut claims: HashMap<&Value, &str> = HashMap::new();
        // The known ones keep their former values. No other document has these, so they come first and meet no conflict.
        let (kept, claimed): (Vec<_>, Vec<_>) = (0..documents.len()).partition(|nth| is_known(documents[*nth].0));
        for nth in kept.into_iter().chain(claimed) {
            let (key, values) = &documents[nth];
            for value in values {
                let other = self.of_value.get(value).map(String::as_str).or_else(|| claims.insert(value, key));
                if let Some(other) = other {
                    let (field, key, other) = (value.0.to_owned(), (*key).to_owned(), other.to_owned());
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
    use crate::read::read_model::FieldValue;

    fn values(numbers: &[i64]) -> Vec<Value> {
        numbers.iter().map(|number| ("number", FieldValue { number: *number, text: String::new() })).collect()
    }

    fn settle(owners: &mut Owners, documents: &[(&str, &[i64])]) -> Vec<(String, String)> {
        let documents = documents.iter().map(|(key, numbers)| (*key, values(numbers))).collect();
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
