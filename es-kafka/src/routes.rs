//! What an application declares of the topics of single categories.

use std::collections::BTreeMap;

use es_core::{backend::check_category, error::BoxError};

use crate::topic_settings::TopicSettings;

/// What ends the name of every topic of events that is not routed.
pub(crate) const EVENTS: &str = "-events";
/// The topic of the progress, without the prefix.
pub(crate) const PROGRESS: &str = "relay-progress";
/// The longest name that Kafka allows for a topic.
const MAX_NAME: usize = 249;

/// Where the events of one category go, and how their topic is made.
///
/// ```
/// use es_kafka::Route;
///
/// let orders = Route::to("orders").partitions(12);
/// let secrets = Route::unpublished();
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    target: Target,
    pub(crate) partitions: Option<i32>,
    pub(crate) settings: Option<TopicSettings>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Target {
    /// `<prefix><category>-events`.
    #[default]
    Usual,
    /// `<prefix><name>`.
    Named(String),
    Nowhere,
}

impl Route {
    /// To the usual topic, whose partitions or settings may be declared.
    pub fn usual() -> Self {
        Self::default()
    }

    /// To the topic `<prefix><name>`.
    pub fn to(name: impl Into<String>) -> Self {
        Self { target: Target::Named(name.into()), ..Self::default() }
    }

    /// Nowhere: the events of the category are in the log only. Readers that follow Kafka and listen to it are refused.
    pub fn unpublished() -> Self {
        Self { target: Target::Nowhere, ..Self::default() }
    }

    /// How many partitions the topic gets if the relay creates it, instead of [`RelayConfig::partitions`](crate::RelayConfig).
    pub fn partitions(self, partitions: i32) -> Self {
        Self { partitions: Some(partitions), ..self }
    }

    /// How the topic is created, and what it is compared with, instead of [`RelayConfig::topics`](crate::RelayConfig).
    pub fn settings(self, settings: TopicSettings) -> Self {
        Self { settings: Some(settings), ..self }
    }
}

/// The categories whose events do not go to the usual topic, or whose topic is made in another way.
///
/// Only the relay declares them. Readers, `relay status` and `relay reconcile` learn from its progress where the events are.
///
/// ```
/// use es_kafka::{KafkaRelay, Route, Routes};
///
/// # fn run() -> Result<KafkaRelay, es_kafka::InvalidRoute> {
/// let routes = Routes::new([("order", Route::to("orders").partitions(12)), ("session", Route::unpublished())])?;
/// let relay = KafkaRelay::new("127.0.0.1:9092").relay(|relay| relay.routes = routes);
/// # Ok(relay)
/// # }
/// # run().unwrap();
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<String, Route>);

/// Why routes cannot be declared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRoute {
    /// There is no such category.
    #[error("{category:?} is no category")]
    Category {
        /// What was declared.
        category: String,
        /// Why it is none.
        source: BoxError,
    },
    /// A category was declared twice.
    #[error("the category {category:?} has two routes")]
    Twice {
        /// The category.
        category: String,
    },
    /// Kafka has no such topics.
    #[error("{topic:?} is no name of a topic: it has 1 to 249 letters, digits, '.', '_' and '-'")]
    Name {
        /// What was declared.
        topic: String,
    },
    /// A topic holds the events of one category.
    #[error("the events of {category:?} cannot go to {topic:?}: those of {other:?} go there")]
    Shared {
        /// The category.
        category: String,
        /// The topic.
        topic: String,
        /// The other category.
        other: String,
    },
    /// The name looks like a topic that a relay names itself, perhaps one of another prefix.
    #[error(
        "the events of {category:?} cannot go to {topic:?}: a relay names topics so itself, which end in \"-events\" or \"relay-progress\""
    )]
    Reserved {
        /// The category.
        category: String,
        /// The topic.
        topic: String,
    },
}

impl Routes {
    /// Routes for some categories.
    ///
    /// # Errors
    /// [`InvalidRoute`].
    pub fn new<C: Into<String>>(routes: impl IntoIterator<Item = (C, Route)>) -> Result<Self, InvalidRoute> {
        let (mut declared, mut named) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        for (category, mut route) in routes {
            let category = category.into();
            check_category(&category)
                .map_err(|invalid| InvalidRoute::Category { category: category.clone(), source: invalid.into() })?;
            if let Target::Named(topic) = &route.target {
                if *topic == format!("{category}{EVENTS}") {
                    route.target = Target::Usual;
                } else {
                    check_name(&category, topic)?;
                    if let Some(other) = named.insert(topic.clone(), category.clone()) {
                        return Err(InvalidRoute::Shared { category, topic: topic.clone(), other });
                    }
                }
            }
            if declared.insert(category.clone(), route).is_some() {
                return Err(InvalidRoute::Twice { category });
            }
        }
        Ok(Self(declared))
    }

    pub(crate) fn of(&self, category: &str) -> Option<&Route> {
        self.0.get(category)
    }

    /// All settings that are declared.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &TopicSettings> {
        self.0.values().filter_map(|route| route.settings.as_ref())
    }

    /// The topic of each category that has not the usual one, under this prefix; `None`: it is not published.
    pub(crate) fn targets(&self, prefix: &str) -> BTreeMap<String, Option<String>> {
        let target = |(category, route): (&String, &Route)| match &route.target {
            Target::Usual => None,
            Target::Named(name) => Some((category.clone(), Some(format!("{prefix}{name}")))),
            Target::Nowhere => Some((category.clone(), None)),
        };
        self.0.iter().filter_map(target).collect()
    }
}

/// A name that ends like those of the usual topics could be that of another category, or of another prefix.
fn check_name(category: &str, topic: &str) -> Result<(), InvalidRoute> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topic.is_empty() || topic.len() > MAX_NAME || topic == "." || topic == ".." || !topic.bytes().all(allowed) {
        return Err(InvalidRoute::Name { topic: topic.to_owned() });
    }
    if let Some(other) = topic.strip_suffix(EVENTS).filter(|other| check_category(other).is_ok()) {
        let (category, topic, other) = (category.to_owned(), topic.to_owned(), other.to_owned());
        return Err(InvalidRoute::Shared { category, topic, other });
    }
    if topic.ends_with(EVENTS) || topic.ends_with(PROGRESS) {
        return Err(InvalidRoute::Reserved { category: category.to_owned(), topic: topic.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn r10_two_categories_do_not_share_a_topic() {
        let both = Routes::new([("order", Route::to("sales")), ("payment", Route::to("sales"))]).unwrap_err();
        assert!(matches!(&both, InvalidRoute::Shared { other, .. } if other == "order"), "{both}");
        let usual = Routes::new([("order", Route::to("payment-events"))]).unwrap_err();
        assert!(matches!(&usual, InvalidRoute::Shared { other, .. } if other == "payment"), "{usual}");
        let twice = Routes::new([("order", Route::to("a")), ("order", Route::unpublished())]).unwrap_err();
        assert!(matches!(&twice, InvalidRoute::Twice { .. }), "{twice}");
    }

    #[test]
    fn r10_a_route_is_no_topic_that_a_relay_names_itself() {
        for topic in ["relay-progress", "eu.relay-progress", "eu.order-events", "Order-events"] {
            let refused = Routes::new([("order", Route::to(topic))]).unwrap_err();
            assert!(matches!(&refused, InvalidRoute::Reserved { .. }), "{topic}: {refused}");
        }
        for topic in ["", ".", "a b", "ä", &"a".repeat(250)] {
            let refused = Routes::new([("order", Route::to(topic))]).unwrap_err();
            assert!(matches!(&refused, InvalidRoute::Name { .. }), "{topic}: {refused}");
        }
        let refused = Routes::new([("Order", Route::unpublished())]).unwrap_err();
        assert!(matches!(&refused, InvalidRoute::Category { .. }), "{refused}");
    }

    #[test]
    fn the_usual_topic_is_no_other_target() {
        let routes = Routes::new([
            ("order", Route::to("order-events").partitions(6)),
            ("payment", Route::to("money")),
            ("session", Route::unpublished()),
        ])
        .unwrap();
        let targets = routes.targets("shop.");
        let wanted =
            BTreeMap::from([("payment".to_owned(), Some("shop.money".to_owned())), ("session".to_owned(), None)]);
        assert_eq!((targets, routes.of("order").unwrap().partitions), (wanted, Some(6)));
    }
}
