//! Which version each stream of an import has.
//!
//! Looking a stream up costs the database as much as writing an event. So streams are numbered once, by
//! the one who reads the history, and looked up once, while the chunk before is being written; the one who
//! writes keeps their versions, and under the append lock learns only what others have written since its last
//! chunk. When there are too many, both forget all of them and begin again.

use std::collections::HashMap;

use es_core::StreamId;

/// How many streams an import remembers; at some hundred bytes each (R17).
const MOST_STREAMS: usize = 100_000;

/// The numbers of the streams that an import knows.
#[derive(Default)]
pub(super) struct Numbers {
    streams: HashMap<StreamId, Number>,
    chunk: u64,
}

struct Number {
    number: usize,
    /// The last chunk that holds the stream.
    chunk: u64,
}

/// The streams of one chunk.
#[derive(Default)]
pub(super) struct ChunkStreams {
    /// Whether numbers start anew with this chunk.
    fresh: bool,
    /// Whether they should with the next one: this is the writer's answer.
    crowded: bool,
    /// Each stream of the chunk once, with its number.
    all: Vec<(usize, StreamId)>,
    /// How many streams were known before.
    before: usize,
    /// The versions of the others, by their numbers, when the log ended at `seen`.
    new: Vec<i64>,
    seen: i64,
}

impl Numbers {
    /// Begins a chunk: makes `streams` empty.
    pub(super) fn begin(&mut self, streams: &mut ChunkStreams) {
        self.chunk += 1;
        streams.fresh = self.chunk == 1 || streams.crowded || self.streams.len() > MOST_STREAMS;
        if streams.fresh {
            self.streams.clear();
        }
        streams.before = self.streams.len();
        streams.all.clear();
    }

    /// The number of `stream`, which is in the chunk.
    pub(super) fn number(&mut self, stream: &StreamId, streams: &mut ChunkStreams) -> usize {
        let next = self.streams.len();
        let chunk = self.chunk;
        let number = match self.streams.get_mut(stream) {
            Some(known) if known.chunk == chunk => return known.number,
            Some(known) => {
                known.chunk = chunk;
                known.number
            }
            None => {
                self.streams.insert(stream.clone(), Number { number: next, chunk });
                next
            }
        };
        streams.all.push((number, stream.clone()));
        number
    }
}

impl ChunkStreams {
    /// The streams that must be looked up, in the order of their numbers.
    pub(super) fn unknown(&self) -> Vec<&str> {
        self.all.iter().filter(|(number, _)| *number >= self.before).map(|(_, stream)| stream.as_str()).collect()
    }

    /// Takes note of what the log knows of the `unknown` ones when it ends at `seen`: the versions of those
    /// that are `found`.
    pub(super) fn looked_up(&mut self, seen: i64, found: &HashMap<String, i64>) {
        self.seen = seen;
        self.new = self.unknown().into_iter().map(|stream| found.get(stream).copied().unwrap_or(0)).collect();
    }
}

/// The versions of the streams, as the one knows who writes.
#[derive(Default)]
pub(super) struct Versions {
    /// As of when they were looked up or written here.
    by_number: Vec<i64>,
    /// What others have written since numbers started anew.
    others: HashMap<String, i64>,
    /// Where the last chunk ended, and the one before.
    ends: Option<(i64, i64)>,
}

impl Versions {
    /// After which position others may have written what is not known here: that of the last chunk. Where
    /// numbers start anew, this import's own last chunk counts too, since it may not have been there yet
    /// when the streams were looked up; the chunk before it was, since its memory is used again.
    pub(super) fn known_up_to(&self, streams: &ChunkStreams) -> i64 {
        match self.ends {
            None => streams.seen,
            Some((_, before)) if streams.fresh => before,
            Some((last, _)) => last,
        }
    }

    /// Takes note of `streams` and of what was `written` after [`known_up_to`](Self::known_up_to); then
    /// the versions of the chunk's streams, by number, are those under the append lock.
    pub(super) fn learn(
        &mut self,
        streams: &mut ChunkStreams,
        written: impl Iterator<Item = (String, i64)>,
    ) -> &mut [i64] {
        if streams.fresh {
            self.by_number.clear();
            self.others.clear();
        }
        self.by_number.append(&mut streams.new);
        self.others.extend(written);
        if !self.others.is_empty() {
            for (number, stream) in &streams.all {
                let other = self.others.get(stream.as_str()).copied().unwrap_or(0);
                self.by_number[*number] = self.by_number[*number].max(other);
            }
        }
        streams.crowded = self.others.len() > MOST_STREAMS;
        &mut self.by_number
    }

    /// A chunk was written up to position `end`.
    pub(super) fn go_on(&mut self, end: i64) {
        self.ends = Some((end, self.ends.map_or(end, |(last, _)| last)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of versions, in which others write too.
    #[derive(Default)]
    struct Log {
        events: Vec<String>,
    }

    impl Log {
        fn version(&self, stream: &str) -> i64 {
            i64::try_from(self.events.iter().filter(|event| *event == stream).count()).expect("a few")
        }

        fn end(&self) -> i64 {
            i64::try_from(self.events.len()).expect("a few")
        }

        fn look_up(&self, streams: &mut ChunkStreams) {
            let found = streams.unknown().into_iter().map(|stream| (stream.to_owned(), self.version(stream)));
            let found = found.filter(|(_, version)| *version > 0).collect();
            streams.looked_up(self.end(), &found);
        }

        /// Writes the chunk and checks every version that it was given.
        fn write(&mut self, versions: &mut Versions, streams: &mut ChunkStreams, chunk: &[(usize, String)]) {
            let known = usize::try_from(versions.known_up_to(streams)).expect("a position");
            let behind: Vec<_> =
                self.events[known..].iter().map(|stream| (stream.clone(), self.version(stream))).collect();
            let current = versions.learn(streams, behind.into_iter());
            for (number, stream) in chunk {
                assert_eq!(current[*number], self.version(stream), "{stream}");
                current[*number] += 1;
                self.events.push(stream.clone());
            }
            versions.go_on(self.end());
        }
    }

    /// Others write between any two steps; numbers start anew every third chunk; and a chunk is looked up
    /// before the one before it is written, as it happens when both are at work.
    #[test]
    fn r3_versions_stay_right_whatever_others_write_and_whenever_numbers_start_anew() {
        let mut log = Log::default();
        let (mut numbers, mut versions) = (Numbers::default(), Versions::default());
        let mut waiting: Option<(ChunkStreams, Vec<(usize, String)>)> = None;
        let mut spare = vec![ChunkStreams::default(), ChunkStreams::default()];
        for round in 0..200_usize {
            let mut streams = spare.pop().expect("two go round");
            streams.crowded = round % 3 == 2;
            numbers.begin(&mut streams);
            let chunk: Vec<_> = (0..7)
                .map(|event| {
                    let name = format!("order-{}", (round * 5 + event * event) % 13);
                    let number = numbers.number(&name.parse().expect("a name"), &mut streams);
                    (number, name)
                })
                .collect();
            log.events.push(format!("order-{}", round * 3 % 13));
            log.look_up(&mut streams);
            log.events.push(format!("order-{}", round * 7 % 13));
            if let Some((mut streams, chunk)) = waiting.replace((streams, chunk)) {
                log.write(&mut versions, &mut streams, &chunk);
                spare.push(streams);
            }
            log.events.push(format!("order-{}", round * 11 % 13));
        }
    }
}
