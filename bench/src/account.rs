//! The work: an account, and deposits into it. Every contender stores the same events of the same size.

use es_core::{Aggregate, Event};
use serde::{Deserialize, Serialize};

/// What fills a deposit up to 204 bytes of JSON.
const NOTE: &str = "Invoice 2026-04711 of the third quarter, paid by standing order to the usual account, \
    approved by the head office, entry 123456789012345";

/// What has happened to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(category = "account")]
pub(crate) enum AccountEvent {
    /// Money came in.
    #[event(name = "account.deposited")]
    Deposited {
        /// In cents.
        amount: u64,
        /// Of the money.
        currency: String,
        /// The client's own number.
        reference: String,
        /// For people.
        note: String,
    },
}

impl AccountEvent {
    /// A deposit of one cent.
    pub(crate) fn deposit() -> Self {
        Self::Deposited {
            amount: 1,
            currency: "EUR".to_owned(),
            reference: "REF-0000000001".to_owned(),
            note: NOTE.to_owned(),
        }
    }

    /// The fields as JSON, without the variant: what we store.
    pub(crate) fn payload(&self) -> Vec<u8> {
        Event::encode(self).expect("a deposit is JSON").to_vec()
    }
}

/// What can be asked of an account: so many deposits at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Deposit {
    /// How many events that makes: 1, unless a measurement is prepared.
    pub(crate) times: u32,
}

/// No account may hold more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the account is full")]
pub(crate) struct Full;

/// The state on which is decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// In cents.
    pub(crate) balance: u64,
    /// How many events there were.
    pub(crate) changes: u64,
}

impl Account {
    /// The rule, the same for every contender.
    pub(crate) fn decide(&self, deposit: Deposit) -> Result<Vec<AccountEvent>, Full> {
        if self.balance > 1_000_000_000 {
            return Err(Full);
        }
        Ok((0..deposit.times).map(|_| AccountEvent::deposit()).collect())
    }

    /// The fold, the same for every contender.
    pub(crate) fn fold(&mut self, event: &AccountEvent) {
        let AccountEvent::Deposited { amount, .. } = event;
        self.balance += amount;
        self.changes += 1;
    }
}

impl Aggregate for Account {
    type Command = Deposit;
    type Event = AccountEvent;
    type Error = Full;

    fn handle(&self, command: &Deposit) -> Result<Vec<AccountEvent>, Full> {
        self.decide(*command)
    }

    fn apply(&mut self, event: &AccountEvent) {
        self.fold(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_204_bytes() {
        assert_eq!(AccountEvent::deposit().payload().len(), 204);
    }
}
