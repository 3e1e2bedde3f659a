//! One step of a client.

use fastrand::Rng;

use super::{
    draft::{self, Draft, Look},
    size::Size,
};

/// What a client does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Appends new events: to several streams together if there are several drafts.
    Append {
        /// One, or several that are made together.
        drafts: Vec<Draft>,
        /// Sends it through two stores at the same time.
        twice: bool,
        /// Drops the future after so many polls.
        drop_after: Option<u32>,
    },
    /// Sends appends through one store at once. Appends to one stream are usually a chain: each expects the last event of the
    /// one before it.
    AtOnce {
        /// In the order in which they are sent.
        links: Vec<Draft>,
        /// Drops the future of this link after this many polls.
        dropped: Option<(usize, u32)>,
    },
    /// Sends an earlier append of this client again, with any outcome.
    Again {
        /// Which one, counted from the last.
        back: usize,
        /// Through another store than the first time.
        elsewhere: bool,
        /// Drops the future after so many polls.
        drop_after: Option<u32>,
    },
    /// Reads a stream.
    ReadStream {
        /// Which one.
        stream: u32,
        /// How many of the known versions are left to read.
        back: u64,
        /// At most so many events.
        limit: usize,
        /// Drops the future after so many polls.
        drop_after: Option<u32>,
    },
    /// Reads what matches a query.
    ReadMatching {
        /// The query, and the position after which it applies.
        look: Look,
        /// At most so many events.
        limit: usize,
    },
    /// Reads the last position of the log.
    Head,
    /// Looks up the outcome under an idempotency key.
    FindCommand {
        /// On which stream.
        stream: u32,
        /// Which key.
        key: u32,
    },
}

impl Operation {
    /// A random operation, the `number`-th of its client.
    pub(super) fn random(rng: &mut Rng, size: &Size, number: u32) -> Self {
        match rng.u32(0..100) {
            0..40 => append(vec![Draft::random(rng, size, number)], rng),
            40..50 => append(draft::together(rng, size, number), rng),
            50..58 => at_once(draft::chain(rng, size, number), rng),
            58..61 => at_once(draft::crowd(rng, size, number), rng),
            61..70 => Self::Again { back: rng.usize(0..3), elsewhere: rng.bool(), drop_after: drop_after(rng) },
            70..76 => Self::Append { drafts: draft::flawed(rng, size, number), twice: false, drop_after: None },
            76..85 => Self::ReadStream {
                stream: draft::stream(rng, size, number),
                back: rng.u64(0..60),
                limit: rng.usize(0..40),
                drop_after: drop_after(rng),
            },
            85..91 => Self::ReadMatching { look: Look::random(rng, number), limit: rng.usize(0..40) },
            91..94 => Self::Head,
            _ => Self::FindCommand { stream: draft::stream(rng, size, number), key: draft::key(rng, number) },
        }
    }
}

fn append(drafts: Vec<Draft>, rng: &mut Rng) -> Operation {
    Operation::Append { drafts, twice: rng.u32(0..8) == 0, drop_after: drop_after(rng) }
}

fn at_once(links: Vec<Draft>, rng: &mut Rng) -> Operation {
    let dropped = drop_after(rng).map(|polls| (rng.usize(0..links.len()), polls));
    Operation::AtOnce { links, dropped }
}

/// Most futures run to their end. Of the others some are dropped before the first poll, some when they are nearly done.
fn drop_after(rng: &mut Rng) -> Option<u32> {
    let most = 1 << rng.u32(0..10);
    (rng.u32(0..8) == 0).then(|| rng.u32(0..most))
}
