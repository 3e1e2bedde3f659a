//! Whether categories still go where their events went.

use std::collections::BTreeSet;

use super::failure::RelayError;
use crate::{progress::Progress, topics::Topics};

/// Refuses another topic for a category whose events were published, or left out: a part of them would be missing in the new one.
///
/// One of which no event was published yet may go elsewhere. Of one that is not published it is not known whether there are events.
pub(super) fn refusal(progress: &Progress, declared: &Topics) -> Option<RelayError> {
    let former = Topics::new(declared.prefix()).with_targets(progress.targets.clone());
    let categories: BTreeSet<_> = former.targets().keys().chain(declared.targets().keys()).collect();
    categories.into_iter().find_map(|category| {
        let (was, now) = (former.target(category), declared.target(category));
        let has_events = was.as_ref().is_none_or(|topic| progress.partitions.contains_key(topic));
        (was != now && has_events).then(|| RelayError::Rerouted {
            category: category.clone(),
            was,
            now,
            progress: declared.progress(),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;

    fn topics(targets: &[(&str, Option<&str>)]) -> Topics {
        let targets = targets.iter().map(|(category, target)| ((*category).to_owned(), target.map(str::to_owned)));
        Topics::new("").with_targets(targets.collect())
    }

    #[test]
    fn r10_only_a_category_without_published_events_goes_elsewhere() {
        let partitions = BTreeMap::from([("order-events".to_owned(), 3), ("money".to_owned(), 3)]);
        let targets = topics(&[("payment", Some("money")), ("session", None)]).targets().clone();
        let progress = Progress { partitions, targets, ..Progress::nothing(Uuid::nil()) };
        let kept = [("payment", Some("money")), ("session", None)];
        let and = |more: (&'static str, Option<&'static str>)| topics(&[kept[0], kept[1], more]);
        assert!(refusal(&progress, &topics(&kept)).is_none());
        assert!(refusal(&progress, &and(("shipment", Some("parcels")))).is_none(), "nothing of it was published");
        assert!(refusal(&progress, &and(("shipment", None))).is_none(), "nothing of it was published");
        for (declared, moved) in [
            (topics(&[("session", None)]), "payment"),
            (topics(&[("payment", None), ("session", None)]), "payment"),
            (topics(&[("payment", Some("money"))]), "session"),
            (and(("order", Some("orders"))), "order"),
            (and(("order", None)), "order"),
        ] {
            let refused = refusal(&progress, &declared);
            assert!(
                matches!(&refused, Some(RelayError::Rerouted { category, .. }) if category == moved),
                "{refused:?}"
            );
        }
    }
}
