// A read model that is written with the append: a read after the receipt sees the write, and a unique field is a rule for events.

use std::time::Duration;

use evenfold::{AppendError, ExecuteError, Field, Fields, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "member")]
enum MemberEvent {
    #[event(name = "member.joined")]
    Joined { email: String },
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Member;

impl Aggregate for Member {
    type Command = MemberEvent;
    type Event = MemberEvent;
    type Error = std::convert::Infallible;

    fn handle(&self, joined: &MemberEvent) -> Result<Vec<MemberEvent>, Self::Error> {
        Ok(vec![joined.clone()])
    }

    fn apply(&mut self, _: &MemberEvent) {}
}

/// The address of each member, which no other member has.
struct Addresses;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    email: String,
}

const EMAIL: Field<Address, String> = Field::new("email", |address: &Address| Some(address.email.clone())).unique();

impl Projection for Addresses {
    const NAME: &'static str = "addresses";
    const FIELDS: Fields<Address> = &[&EMAIL];
    type Event = MemberEvent;
    type Document = Address;

    fn keys(&self, event: &Recorded<MemberEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, address: &mut Option<Address>, event: &Recorded<MemberEvent>) -> FoldResult {
        let MemberEvent::Joined { email } = &event.data;
        *address = Some(Address { email: email.clone() });
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = MemoryStore::new();
    let service = Service::builder("library", store).aggregate::<Member>().inline(Addresses).start().await?;
    // Until the first build serves, appends do not fold it. A server waits for `/readyz`.
    service.settled(Duration::from_secs(5)).await?;

    let (members, addresses) = (service.repository::<Member>(), service.read_model::<Addresses>());
    let joined = || MemberEvent::Joined { email: "ada@example.org".to_owned() };
    members.execute("ada", joined()).await?;
    assert!(addresses.get("ada").await?.is_some(), "nothing was waited for");

    let refused = members.execute("bob", joined()).await;
    assert!(matches!(refused, Err(ExecuteError::Append(AppendError::Unfoldable { projection: "addresses", .. }))));
    assert_eq!(addresses.get("bob").await?, None);

    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
