//! What is folded: deposits into accounts, each with a document of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use es_core::{
    Append, Event, EventData, EventOrder, EventStore, Expected, FoldResult, Keys, NewEvent, Position, Projection,
    Recorded, RecordedEvent, StreamId, backend::BoxError,
};
use serde::{Deserialize, Serialize};

/// So that an event has about 200 bytes, as those of applications have.
const NOTE: &str = "Invoice 2026-04711 of the third quarter, paid by standing order to the usual account, \
    approved by the head office, entry 123456789012345";

/// How many events are read at once for the independent fold.
const PAGE: usize = 10_000;

/// What happens to an account.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "account")]
pub(super) enum AccountEvent {
    /// Money came in.
    #[event(name = "account.deposited")]
    Deposited {
        /// In cents.
        cents: u64,
        /// For people.
        note: String,
    },
}

/// The account to which the deposit `number` of so many accounts goes, and the deposit. Accounts take turns: all documents stay in use.
pub(super) fn deposit(number: u64, accounts: u64) -> (StreamId, EventData) {
    let id = format!("{:08}", number * 7_919 % accounts);
    let event = AccountEvent::Deposited { cents: number % 1_000 + 1, note: NOTE.to_owned() };
    (StreamId::new(AccountEvent::CATEGORY, &id).expect("digits"), EventData::of(&event).expect("it is JSON"))
}

/// The append of the deposit `number`.
pub(super) fn append(number: u64, accounts: u64) -> Append {
    let (stream, data) = deposit(number, accounts);
    Append::new(stream, Expected::Any, vec![NewEvent::new(data)])
}

/// What is kept of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Balance {
    /// How many deposits came.
    pub(super) deposits: u64,
    /// In cents.
    pub(super) cents: u64,
    /// The position of the last one.
    pub(super) last: u64,
}

/// The balances of all accounts.
#[derive(Debug, Clone, Default)]
pub(super) struct Balances {
    /// The position of the first event that this process has folded; 0: none.
    pub(super) first: Arc<AtomicU64>,
    /// At this event it waits until the process is killed.
    pub(super) waits_at: Option<u64>,
    /// Whether it waits.
    pub(super) waits: Arc<AtomicBool>,
}

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = AccountEvent;
    type Document = Balance;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, balance: &mut Option<Balance>, event: &Recorded<AccountEvent>) -> FoldResult {
        let position = event.position.get();
        // Another order than that of the log would find a later one.
        let _ = self.first.compare_exchange(0, position, Ordering::Relaxed, Ordering::Relaxed);
        while self.waits_at == Some(position) {
            self.waits.store(true, Ordering::Relaxed);
            std::thread::park();
        }
        let balance = balance.get_or_insert_default();
        let AccountEvent::Deposited { cents, .. } = &event.data;
        *balance = Balance { deposits: balance.deposits + 1, cents: balance.cents + cents, last: position };
        Ok(())
    }
}

/// The fold of the log by code that shares nothing with projections.
///
/// # Errors
/// Those of the log, and of payloads that hold no deposit.
pub(super) async fn independent_fold(log: &impl EventStore) -> Result<HashMap<String, Balance>, BoxError> {
    #[derive(Deserialize)]
    struct Deposit {
        cents: u64,
    }
    let mut balances = HashMap::<String, Balance>::new();
    let mut after = Position::ZERO;
    loop {
        let page = log.read_log(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(balances) };
        after = last.position;
        for RecordedEvent { stream, position, data, .. } in &page {
            let deposit: Deposit = serde_json::from_slice(&data.payload)?;
            let balance = balances.entry(stream.id().to_owned()).or_default();
            balance.deposits += 1;
            balance.cents += deposit.cents;
            balance.last = position.get();
        }
    }
}
