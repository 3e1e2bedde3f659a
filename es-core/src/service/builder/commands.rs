//! The part that executes the commands of other services.

use std::{sync::Arc, time::Duration};

use super::{Body, PartKind, Resources, ServiceBuilder};
use crate::{
    backoff::Backoff,
    react::{
        commands::{COMMANDS, CommandOwner, CommandTopic},
        consumer::ConsumerRunner,
    },
    read::{failure::FailurePolicy, source::EventSource},
};

impl ServiceBuilder {
    /// Executes the commands that other services send to `topic`, on the aggregates that `owns` names, and answers them. It is a
    /// [consumer](PartKind::Consumer) of the name [`COMMANDS`]; several kinds of aggregates share a topic.
    ///
    /// ```
    /// # use es_core::{Service, ServiceBuilder, backend::CommandTopic, testing::account::Account};
    /// fn bank(builder: ServiceBuilder, topic: impl CommandTopic) -> ServiceBuilder {
    ///     builder.aggregate::<Account>().commands(topic, |owner, shared| owner.aggregate(shared.repository::<Account>()))
    /// }
    /// ```
    ///
    /// `owns` gets the repositories that the parts share.
    ///
    /// A command that cannot be executed (of a category that is not owned, or that cannot be decoded) is
    /// [forwarded](FailurePolicy::forward) to the dead letters of the topic at once, and others go on.
    pub fn commands(
        self,
        topic: impl CommandTopic,
        owns: impl FnOnce(CommandOwner, &Resources) -> CommandOwner + Send + 'static,
    ) -> Self {
        self.commands_with(topic, owns, |runner| runner)
    }

    /// Executes the commands that other services send, with settings of the consumer.
    pub fn commands_with(
        mut self,
        topic: impl CommandTopic,
        owns: impl FnOnce(CommandOwner, &Resources) -> CommandOwner + Send + 'static,
        settings: impl FnOnce(ConsumerRunner<CommandOwner>) -> ConsumerRunner<CommandOwner> + Send + 'static,
    ) -> Self {
        let topic = Arc::new(topic);
        let source: Arc<dyn EventSource> = topic.clone();
        self.consumed.push((COMMANDS, source.clone()));
        self.register(PartKind::Consumer, COMMANDS, move |resources, readers| {
            let owner = owns(CommandOwner::new(topic, resources.store()), resources);
            let runner = ConsumerRunner::new(owner, source, resources.store());
            let runner = with_settings!(runner, readers);
            let at_once = FailurePolicy::retry(Backoff::new(Duration::ZERO, Duration::ZERO), 0).then_forward();
            Body::Other(Box::new(settings(runner.on_failure(at_once))))
        })
    }
}
