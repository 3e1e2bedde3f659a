//! Exact amounts of money.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Deserialize, Serialize};

/// An amount of money, exact to the last digit.
///
/// Events keep it as text (`"49.99"`); the API shows it as a JSON number, see [`number`]. Neither
/// ever passes through a float.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Decimal", into = "Decimal")]
pub struct Money(Decimal);

impl Money {
    /// Zero.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// An amount in hundredths.
    pub fn of_cents(cents: i64) -> Self {
        Decimal::new(cents, 2).into()
    }

    /// The amount in hundredths; `None` if it has fractions of them, or is too large.
    pub fn cents(self) -> Option<i64> {
        let cents = self.0.checked_mul(Decimal::ONE_HUNDRED)?;
        cents.is_integer().then(|| cents.to_i64()).flatten()
    }

    /// The amount times a number; `None` if the result is too large.
    pub fn times(self, quantity: u32) -> Option<Self> {
        self.0.checked_mul(quantity.into()).map(Self::from)
    }

    /// The amount plus `other`; `None` if the sum is too large.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self::from)
    }

    /// The amount minus `other`; `None` if the result is too large.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self::from)
    }

    /// The sum of all `amounts`; `None` if it is too large.
    pub fn sum(amounts: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, |sum, amount| sum.plus(amount?))
    }
}

/// Equal amounts are written in the same way: with two decimals, and with more only if they are not zero.
impl From<Decimal> for Money {
    fn from(amount: Decimal) -> Self {
        let mut amount = amount.normalize();
        if amount.scale() < 2 {
            amount.rescale(2);
        }
        Self(amount)
    }
}

impl FromStr for Money {
    type Err = rust_decimal::Error;

    fn from_str(digits: &str) -> Result<Self, rust_decimal::Error> {
        Decimal::from_str_exact(digits).map(Self::from)
    }
}

impl From<Money> for Decimal {
    fn from(money: Money) -> Self {
        money.0
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Money as a JSON number, digit by digit: `#[serde(with = "money::number")]`.
pub mod number {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;

    use super::Money;

    /// Writes the number with all its digits.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(money: &Money, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(money.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }

    /// Reads the number from its digits. A float would round them.
    ///
    /// # Errors
    /// The value is not a JSON number, or has more digits than a `Money` can hold exactly.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
        let digits = Box::<RawValue>::deserialize(deserializer)?;
        exactly(digits.get()).ok_or_else(|| de::Error::custom("expected a number that can be held exactly"))
    }

    fn exactly(digits: &str) -> Option<Money> {
        let mantissa = Decimal::from_str_exact(digits.split(['e', 'E']).next()?).ok()?;
        let amount = if digits.contains(['e', 'E']) { Decimal::from_scientific(digits).ok()? } else { mantissa };
        Some(amount.into())
    }
}

/// The price of one piece in a request: a number from 0 to 10¹² with at most four decimals.
pub mod price {
    pub use super::number::serialize;

    use rust_decimal::Decimal;
    use serde::{Deserializer, de};

    use super::{Money, number};

    const HIGHEST: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);
    const DECIMALS: u32 = 4;

    /// Reads the number and checks it.
    ///
    /// # Errors
    /// The value is not such a number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
        let price = number::deserialize(deserializer)?;
        if price < Money::ZERO {
            return Err(de::Error::custom("an amount is not negative"));
        }
        if price.0 > HIGHEST {
            return Err(de::Error::custom(format_args!("an amount is at most {HIGHEST}")));
        }
        if price.0.scale() > DECIMALS {
            return Err(de::Error::custom(format_args!("an amount has at most {DECIMALS} decimals")));
        }
        Ok(price)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Offer {
        #[serde(with = "price")]
        price: Money,
    }

    fn offer(price: &str) -> Result<String, serde_json::Error> {
        let offer: Offer = serde_json::from_str(&format!(r#"{{"price":{price}}}"#))?;
        serde_json::to_string(&offer)
    }

    #[test]
    fn numbers_keep_every_digit() {
        for (written, read) in [
            ("49.99", "49.99"),
            ("0.1", "0.10"),
            ("5", "5.00"),
            ("0.0001", "0.0001"),
            ("1.50000000", "1.50"),
            ("4999e-2", "49.99"),
            ("1E+3", "1000.00"),
            ("123456789012.3456", "123456789012.3456"),
            ("1000000000000", "1000000000000.00"),
        ] {
            assert_eq!(offer(written).unwrap(), format!(r#"{{"price":{read}}}"#));
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for written in [
            "-0.01",
            "0.00001",
            "1e-30",
            "1e400",
            "1000000000000.0001",
            "0.12345678901234567890123456789012345",
            r#""49.99""#,
            "null",
            "[]",
        ] {
            assert!(offer(written).is_err(), "{written}");
        }
    }

    #[test]
    fn events_keep_text() {
        assert_eq!(serde_json::to_string(&Money::of_cents(9_990)).unwrap(), r#""99.90""#);
        assert_eq!(serde_json::from_str::<Money>(r#""99.9""#).unwrap(), Money::of_cents(9_990));
    }
}
