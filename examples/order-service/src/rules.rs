//! The rules of the shop: how much there is of a product, how long a customer may take to pay, and what the payment provider and the
//! carrier refuse. They are built in, or in a file, so that each failure can be shown and tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::ids::{CustomerId, ProductId};

/// All rules. What a file leaves out is as it is built in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Rules {
    pub stock: StockRules,
    pub payments: PaymentRules,
    pub shipments: ShipmentRules,
    pub mail: MailRules,
}

/// With how many pieces the stock of a product begins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StockRules {
    /// Of every product that is not named.
    pub opening: u32,
    /// Of these products.
    pub products: BTreeMap<ProductId, u32>,
}

impl Default for StockRules {
    fn default() -> Self {
        Self { opening: 10_000, products: BTreeMap::new() }
    }
}

impl StockRules {
    /// Of `product`.
    pub fn opening_of(&self, product: &ProductId) -> u64 {
        self.products.get(product).copied().unwrap_or(self.opening).into()
    }
}

/// What the payment provider answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PaymentRules {
    /// How long an order waits to be paid, in milliseconds.
    pub within_ms: u64,
    /// The customers whose payments are declined, and why.
    pub declined: BTreeMap<CustomerId, String>,
    /// The customers who pay later at the provider, if they do.
    pub later: BTreeSet<CustomerId>,
}

impl Default for PaymentRules {
    fn default() -> Self {
        Self { within_ms: 15 * 60 * 1_000, declined: BTreeMap::new(), later: BTreeSet::new() }
    }
}

impl PaymentRules {
    /// What is wrong with them, for people.
    fn flaw(&self) -> Option<String> {
        if self.within_ms == 0 {
            return Some("payments.within_ms: an order has some time to be paid".to_owned());
        }
        let both = self.later.iter().find(|customer| self.declined.contains_key(*customer));
        both.map(|customer| format!("payments: {customer} is both declined and later"))
    }
}

/// What the carrier answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShipmentRules {
    /// The customers to whom it does not deliver, and why.
    pub failed: BTreeMap<CustomerId, String>,
}

/// Where mails come from and go to, if there is a server for them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailRules {
    /// The address of the shop.
    pub from: String,
    /// The part after the `@` of a customer's address; before it is the customer's id.
    pub customers_at: String,
}

impl Default for MailRules {
    fn default() -> Self {
        Self { from: "shop@localhost".to_owned(), customers_at: "localhost".to_owned() }
    }
}

impl Rules {
    /// Those in `file`, or those that are built in.
    ///
    /// # Errors
    /// [`RulesError`] names the file and the line.
    pub fn load(file: Option<&Path>) -> Result<Self, RulesError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = fs::read_to_string(file).map_err(|cause| RulesError::Unreadable { file: file.to_owned(), cause })?;
        let rules: Self = toml::from_str(&text)
            .map_err(|cause| RulesError::Invalid { file: file.to_owned(), cause: Box::new(cause) })?;
        match rules.payments.flaw() {
            Some(flaw) => Err(RulesError::Wrong { file: file.to_owned(), flaw }),
            None => Ok(rules),
        }
    }
}

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum RulesError {
    #[error("the rules in {} cannot be read", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the rules in {} are invalid", file.display())]
    Invalid {
        file: PathBuf,
        #[source]
        cause: Box<toml::de::Error>,
    },
    #[error("the rules in {} do not fit together: {flaw}", file.display())]
    Wrong { file: PathBuf, flaw: String },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::error::with_causes;

    use super::*;

    fn read(text: &str) -> Result<Rules, RulesError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rules.toml");
        fs::write(&file, text).unwrap();
        Rules::load(Some(&file))
    }

    #[test]
    fn a_file_changes_what_it_names() {
        assert_eq!(read("").unwrap(), Rules::default());
        let text = r#"
            [stock]
            products = { PROD-DESK = 1 }
            [payments]
            within_ms = 500
            declined = { USR-EVE = "the card has expired" }
        "#;
        let rules = read(text).unwrap();
        let opening = ["PROD-DESK", "PROD-LAMP"].map(|product| rules.stock.opening_of(&product.parse().unwrap()));
        assert_eq!(opening, [1, 10_000]);
        assert_eq!(rules.payments.within_ms, 500);
        assert_eq!(rules.payments.declined[&"USR-EVE".parse().unwrap()], "the card has expired");
        assert_eq!(rules.shipments, ShipmentRules::default());
    }

    #[test]
    fn what_is_not_a_rule_is_told_with_its_line() {
        for text in ["[stock]\nopenning = 1", "[stock]\nopening = -1", "[payments]\nlater = [\"a b\"]"] {
            let told = with_causes(&read(text).unwrap_err());
            assert!(told.contains("rules.toml") && told.contains("line 2"), "{told}");
        }
        for (text, flaw) in [
            ("[payments]\nwithin_ms = 0", "some time to be paid"),
            ("[payments]\nlater = [\"A\"]\ndeclined = { A = \"no\" }", "A is both declined and later"),
        ] {
            let told = with_causes(&read(text).unwrap_err());
            assert!(told.contains(flaw), "{told}");
        }
        assert!(matches!(Rules::load(Some("missing.toml".as_ref())), Err(RulesError::Unreadable { .. })));
    }
}
