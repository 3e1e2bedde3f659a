//! The small domain with which the engine suites work: accounts, and their balances.

use serde::{Deserialize, Serialize};

use crate::{
    event::Recorded,
    read::{
        live::LiveProjection,
        projection::{EventOrder, FoldResult, Keys, Projection},
    },
    write::aggregate::Aggregate,
};

/// What happens to an account.
#[derive(Debug, Clone, PartialEq, Eq, crate::Event)]
#[event(category = "account")]
pub enum AccountEvent {
    /// Money came.
    #[event(name = "account.deposited")]
    Deposited {
        /// How much.
        amount: u64,
    },
    /// Money went.
    #[event(name = "account.withdrawn")]
    Withdrawn {
        /// How much.
        amount: u64,
    },
}

/// What an account can be asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AccountCommand {
    /// Take money.
    Deposit(u64),
    /// Give money.
    Withdraw(u64),
}

/// There is not enough money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the balance is {balance}")]
pub struct Overdrawn {
    /// What there is.
    pub balance: u64,
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What is on it.
    pub balance: u64,
    /// How many events made it so.
    pub changes: u64,
}

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = Overdrawn;

    fn handle(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, Overdrawn> {
        match *command {
            AccountCommand::Deposit(0) | AccountCommand::Withdraw(0) => Ok(Vec::new()),
            AccountCommand::Deposit(amount) => Ok(vec![AccountEvent::Deposited { amount }]),
            AccountCommand::Withdraw(amount) if amount > self.balance => Err(Overdrawn { balance: self.balance }),
            AccountCommand::Withdraw(amount) => Ok(vec![AccountEvent::Withdrawn { amount }]),
        }
    }

    fn apply(&mut self, event: &AccountEvent) {
        self.changes += 1;
        match event {
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
        }
    }
}

/// Each account's history in short: a chain of its versions. An event that was lost, repeated or
/// reordered cannot be folded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Histories;

impl Projection for Histories {
    const NAME: &'static str = "histories";
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = AccountEvent;
    type Document = Vec<u64>;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, versions: &mut Option<Vec<u64>>, event: &Recorded<AccountEvent>) -> FoldResult {
        let versions = versions.get_or_insert_default();
        if versions.len() as u64 + 1 != event.version.get() {
            return Err(format!("{} follows {versions:?}", event.version).into());
        }
        versions.push(event.version.get());
        Ok(())
    }
}

impl LiveProjection for Histories {}

/// All that happened in one document, in the order of the log; `V` is the projection's version.
/// From version 2 on it keeps the balance too, and the event `poison` cannot be folded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ledger<const V: u32 = 1> {
    /// The amount that cannot be folded.
    pub poison: Option<u64>,
}

/// The document of [`Ledger`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// Positions in the order in which they were folded.
    pub positions: Vec<u64>,
    /// Of all accounts together.
    pub balance: Option<i64>,
}

impl<const V: u32> Projection for Ledger<V> {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = V;
    type Event = AccountEvent;
    type Document = LedgerPage;

    fn keys(&self, _: &Recorded<AccountEvent>) -> Keys {
        Keys::one("all")
    }

    fn fold(&self, page: &mut Option<LedgerPage>, event: &Recorded<AccountEvent>) -> FoldResult {
        let page = page.get_or_insert_default();
        let change = match event.data {
            AccountEvent::Deposited { amount } if Some(amount) == self.poison => return Err("poison".into()),
            AccountEvent::Deposited { amount } => amount.cast_signed(),
            AccountEvent::Withdrawn { amount } => -amount.cast_signed(),
        };
        page.positions.push(event.position.get());
        if V > 1 {
            *page.balance.get_or_insert_default() += change;
        }
        Ok(())
    }
}

/// What passed through each account and through all of them, with keys that name documents more than once, as
/// those of a transfer do whose two accounts are the same one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turnover;

impl Projection for Turnover {
    const NAME: &'static str = "turnover";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        let account = event.stream.id().to_owned();
        Keys::many([account.clone(), "all".to_owned(), account, "all".to_owned()])
    }

    fn fold(&self, turnover: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
        *turnover.get_or_insert_default() += amount;
        Ok(())
    }
}
