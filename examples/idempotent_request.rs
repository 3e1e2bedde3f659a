// A client that got no answer asks again under the same key, and gets the first answer.

use evenfold::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "account")]
enum AccountEvent {
    #[event(name = "account.credited")]
    Credited { cents: u64 },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl Aggregate for Account {
    type Command = u64;
    type Event = AccountEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, cents: &u64) -> Result<Vec<AccountEvent>, Self::Error> {
        Ok(vec![AccountEvent::Credited { cents: *cents }])
    }

    fn apply(&mut self, event: &AccountEvent) {
        let AccountEvent::Credited { cents } = event;
        self.cents += cents;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = Repository::<Account>::new(MemoryStore::new());
    let credit = async |cents: u64| {
        let context = CommandContext::default().idempotent(IdempotencyKey::new("payment 17")?, &cents.to_be_bytes());
        Ok::<_, Box<dyn std::error::Error>>(accounts.execute_with("ada", cents, context).await?)
    };
    let first = credit(500).await?;
    let again = credit(500).await?;
    assert!(again.repeated);
    assert_eq!(again.position, first.position);
    assert!(credit(900).await.is_err(), "the key belongs to another request");
    assert_eq!(accounts.load("ada").await?.state.cents, 500);
    Ok(())
}
