//! What the service of the suite does: accounts of clients, a copy of each that a policy keeps, and deposits of which another system tells.

use async_trait::async_trait;
use es_core::{
    Consumer, Policy, PolicyError, Recorded, Repository, Resources, reaction,
    testing::account::{Account, AccountCommand, AccountEvent},
};

/// How the ids of the accounts begin that clients use. Others begin with [`COPY`] or [`FOREIGN`].
pub(crate) const CLIENT: &str = "client-";
pub(crate) const COPY: &str = "copy-";
pub(crate) const FOREIGN: &str = "foreign-";

/// Deposits on the copy of an account what is deposited on the account of a client.
#[derive(Debug)]
pub(crate) struct Copying {
    accounts: Repository<Account>,
}

impl Copying {
    pub(crate) fn new(service: &Resources) -> Self {
        Self { accounts: service.repository() }
    }
}

#[async_trait]
impl Policy for Copying {
    const NAME: &'static str = "copying";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
        let id = event.stream.id();
        if !id.starts_with(CLIENT) {
            return Ok(());
        }
        let context = reaction(event, Self::NAME, "copy")?;
        self.accounts.execute_with(&format!("{COPY}{id}"), AccountCommand::Deposit(amount), context).await?;
        Ok(())
    }
}

/// A message of another system: a deposit whose amount is the number of the message, so that each can be found again.
#[derive(Debug, Clone, PartialEq, Eq, es_core::Event)]
#[event(category = "bank")]
pub(crate) enum BankMessage {
    #[event(name = "paid_in")]
    PaidIn { account: String, number: u64 },
}

/// Deposits what the other system tells of.
#[derive(Debug)]
pub(crate) struct Bank {
    accounts: Repository<Account>,
}

impl Bank {
    pub(crate) fn new(service: &Resources) -> Self {
        Self { accounts: service.repository() }
    }
}

#[async_trait]
impl Consumer for Bank {
    const NAME: &'static str = "bank";
    type Message = BankMessage;

    async fn handle(&self, message: &Recorded<BankMessage>) -> Result<(), PolicyError> {
        let BankMessage::PaidIn { account, number } = &message.data;
        let context = reaction(message, Self::NAME, "deposit")?;
        self.accounts.execute_with(&format!("{FOREIGN}{account}"), AccountCommand::Deposit(*number), context).await?;
        Ok(())
    }
}
