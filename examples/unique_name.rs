// A user name belongs to one user, although every user is a stream of its own. Tags say which names an event is about.

use evenfold::prelude::*;

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "user")]
enum UserEvent {
    #[event(name = "user.registered", tag = "name:{name}")]
    Registered { name: String },
    #[event(name = "user.renamed", tag = "name:{from}", tag = "name:{to}")]
    Renamed { from: String, to: String },
}

/// Who has a name, from all events about this name.
struct Owner {
    name: String,
    user: Option<StreamId>,
}

impl Owner {
    fn of(name: &str) -> Self {
        Self { name: name.to_owned(), user: None }
    }
}

impl DecisionModel for Owner {
    type Event = UserEvent;

    fn query(&self) -> Result<EventQuery, InvalidTag> {
        Ok(EventQuery::tagged([Tag::new(format!("name:{}", self.name))?]))
    }

    fn apply(&mut self, event: &Recorded<UserEvent>) {
        let (UserEvent::Registered { name } | UserEvent::Renamed { to: name, .. }) = &event.data;
        self.user = (*name == self.name).then(|| event.stream.clone());
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the name {0:?} is taken")]
    Taken(String),
    #[error("the user is not called {0:?}")]
    NotTheirs(String),
}

async fn register(users: &Decisions, id: &str, name: &str) -> Result<Receipt, Box<dyn std::error::Error>> {
    let user = StreamId::new("user", id)?;
    let registered = users.decide(Owner::of(name), |owner| match owner.user {
        Some(_) => Err(Refused::Taken(name.into())),
        None => Ok(Decision::append(user.clone(), Expected::NoStream, [UserEvent::Registered { name: name.into() }])),
    });
    Ok(registered.await?)
}

/// Both names are read, decided on and guarded together.
async fn rename(users: &Decisions, id: &str, from: &str, to: &str) -> Result<Receipt, Box<dyn std::error::Error>> {
    let user = StreamId::new("user", id)?;
    let renamed = users.decide((Owner::of(from), Owner::of(to)), |(old, new)| {
        if old.user.as_ref() != Some(&user) {
            return Err(Refused::NotTheirs(from.into()));
        }
        if new.user.is_some() {
            return Err(Refused::Taken(to.into()));
        }
        let event = UserEvent::Renamed { from: from.into(), to: to.into() };
        Ok(Decision::append(user.clone(), Expected::Any, [event]))
    });
    Ok(renamed.await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let users = Decisions::new(MemoryStore::new(), "users");

    register(&users, "1", "ada").await?;
    assert!(register(&users, "2", "ada").await.is_err());

    // Of two users who want the same name at the same moment, one gets it.
    let (first, second) = tokio::join!(register(&users, "3", "bob"), register(&users, "4", "bob"));
    assert!(first.is_ok() != second.is_ok());

    // A name that was given up is free again.
    rename(&users, "1", "ada", "countess").await?;
    register(&users, "2", "ada").await?;
    assert!(rename(&users, "1", "countess", "ada").await.is_err());
    Ok(())
}
