//! The parts of a saga.

use super::{Body, PartKind, ServiceBuilder};
use crate::{
    react::{
        policy::PolicyRunner,
        saga::{Instance, Instances, Reactor, Saga, SagaPerformer},
        schedule::{Planning, Schedule},
    },
    read::{projection::Projection, projector::Projector},
    service::{resources::Resources, start_error::StartError},
};

impl ServiceBuilder {
    /// Adds the saga that `make` returns. `make` gets the repositories and the store that the parts share.
    ///
    /// It has three parts: `<name>` reacts to events, `perform-<name>` performs what instances decide and wakes their timers, and
    /// `saga-<name>` is the read model of the instances ([`Instances`]), in which the second finds what is due.
    pub fn saga<S: Saga>(self, make: impl FnOnce(&Resources) -> S + Send + 'static) -> Self {
        self.saga_with(make, |runner| runner, |performer| performer)
    }

    /// Adds a saga, with settings of what reacts to events, and of what performs.
    pub fn saga_with<S: Saga>(
        self,
        make: impl FnOnce(&Resources) -> S + Send + 'static,
        reacts: impl FnOnce(PolicyRunner<Reactor<S>>) -> PolicyRunner<Reactor<S>> + Send + 'static,
        performs: impl FnOnce(SagaPerformer<S>) -> SagaPerformer<S> + Send + 'static,
    ) -> Self {
        self.performing(make, performs).register_with(PartKind::Saga, S::NAME, |resources, readers| {
            if let Some(flaw) = S::flaw() {
                return Err(StartError::Saga { name: S::NAME, flaw });
            }
            let runner = Reactor::<S>::runner(resources.repository(), resources.source(), resources.store());
            let runner = with_settings!(runner, readers);
            Ok(Body::Other(Box::new(reacts(runner))))
        })
    }

    /// Adds the schedule that `make` returns, whose commands are given at times ([`Service::schedules`](crate::Service::schedules)).
    ///
    /// It has two parts: `perform-<name>` wakes plans and has their commands done, and `saga-<name>` is the read model of the plans.
    pub fn schedule<S: Schedule>(self, make: impl FnOnce(&Resources) -> S + Send + 'static) -> Self {
        self.performing(|resources| Planning::new(make(resources)), |performer| performer)
    }

    /// Adds the instances of a saga: their read model, and what performs for them.
    fn performing<S: Saga>(
        self,
        make: impl FnOnce(&Resources) -> S + Send + 'static,
        performs: impl FnOnce(SagaPerformer<S>) -> SagaPerformer<S> + Send + 'static,
    ) -> Self {
        let known = self.aggregate::<Instance<S>>();
        let known = known.register(PartKind::Projection, Instances::<S>::NAME, |resources, readers| {
            let projector = Projector::new(Instances::<S>::default(), resources.log(), resources.store());
            Body::Projector(Box::new(with_settings!(projector, readers)))
        });
        known.register(PartKind::Saga, SagaPerformer::<S>::NAME, |resources, readers| {
            let (store, instances) = (resources.store(), resources.repository());
            let mut performer =
                SagaPerformer::new(make(resources), instances, resources.read_model(), store.clone(), store);
            if let Some(ttl) = readers.lease {
                performer = performer.lease(ttl);
            }
            if let Some(limit) = readers.standby_limit {
                performer = performer.standby_limit(limit);
            }
            Body::Other(Box::new(performs(performer)))
        })
    }
}
