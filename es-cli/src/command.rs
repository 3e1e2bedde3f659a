//! The commands that need nothing but a store: those of `es`, and of an application's own program.

use clap::Subcommand;
use es_core::ServiceStore;

use crate::{
    dead_letters::DeadLetters,
    doctor::Doctor,
    end::{CommandError, Outcome},
    log::Log,
    operate::{Actions, CancelRebuild, Skip, Switch},
    output::Output,
    readers::Readers,
    sagas::Sagas,
    stream::Stream,
    streams::Streams,
    version::{self, Versioned},
};

/// A command on any store.
///
/// An application adds these commands to its own: `#[command(flatten)]` on a variant that holds one, and [`run`](Self::run).
#[derive(Debug, Clone, Subcommand)]
#[command(version_or = version::UNKNOWN)]
#[expect(private_interfaces, reason = "the command line makes them, and `run` carries them out")]
pub enum StoreCommand {
    /// Lists streams, in the order of their names, with the number of their events
    Streams(Streams),
    /// Shows a stream
    #[command(subcommand)]
    Stream(Stream),
    /// Shows the log
    #[command(subcommand)]
    Log(Log),
    /// Lists the readers (read models and policies): how far they are, and which worker holds them
    Readers(Readers),
    /// Examines the store: connection, role, settings, clock, room, sessions that hold up appends
    ///
    /// Each finding says how bad it is and what to do. The exit code tells the worst.
    Doctor(Doctor),
    /// Pauses a reader, in all processes, until it is resumed
    Pause(Switch),
    /// Lets a paused reader continue
    Resume(Switch),
    /// Moves a reader that has stopped at an event past it
    Skip(Skip),
    /// Discards the read model that a rebuild has begun; the old one goes on
    ///
    /// A program whose read model has a newer version, or serves for the first time, begins again: pause the reader first.
    CancelRebuild(CancelRebuild),
    /// Shows the events that a reader could not handle, and retries, discards or edits them
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Shows the instances of sagas, and asks them for something
    #[command(subcommand)]
    Sagas(Sagas),
    /// Lists what operators did: who, when and why
    Actions(Actions),
}

impl StoreCommand {
    /// Carries it out on `store` and prints to `output`.
    ///
    /// # Errors
    /// [`CommandError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves an act undone or done; a part of the output may have been printed.
    pub async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        match self {
            Self::Streams(streams) => streams.run(store, output).await,
            Self::Stream(stream) => stream.run(store, output).await,
            Self::Log(log) => log.run(store, output).await,
            Self::Readers(readers) => readers.run(store, output).await,
            Self::Doctor(doctor) => doctor.run(store, &[], Vec::new(), output).await,
            Self::Pause(reader) => reader.pause(store, output).await,
            Self::Resume(reader) => reader.resume(store, output).await,
            Self::Skip(skip) => skip.run(store, output).await,
            Self::CancelRebuild(cancel) => cancel.run(store, output).await,
            Self::DeadLetters(letters) => letters.run(store, output).await,
            Self::Sagas(sagas) => sagas.run(store, output).await,
            Self::Actions(actions) => actions.run(store, output).await,
        }
    }
}
