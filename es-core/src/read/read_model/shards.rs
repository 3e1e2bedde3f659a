//! Shards: the parts of a source that have an order of their own, and how workers share them.

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;

/// A part of a source with an order of its own: the log, one of the shards of a log that is split by keys, or one Kafka
/// partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    /// The source that it is a part of: `log`, `log:4` (the log, in four shards), `merged`, or a Kafka topic. It holds no `/`.
    pub source: String,
    /// The number of the partition, if the source has several.
    pub partition: Option<u32>,
}

impl Shard {
    /// All of `source`.
    pub fn whole(source: impl Into<String>) -> Self {
        Self { source: source.into(), partition: None }
    }

    /// One partition of `source`.
    pub fn partition(source: impl Into<String>, partition: u32) -> Self {
        Self { source: source.into(), partition: Some(partition) }
    }

    /// `source`, split into `of` shards by the hash of the keys. In one shard it stays as it is.
    pub fn split(source: &str, of: u32) -> Vec<Self> {
        match of {
            0 | 1 => vec![Self::whole(source)],
            // No Kafka topic has a colon in its name.
            _ => (0..of).map(|number| Self::partition(format!("{source}:{of}"), number)).collect(),
        }
    }

    /// The keys that are handled in it.
    pub fn slice(&self) -> Slice {
        let of = self.source.rsplit_once(':').and_then(|(_, of)| of.parse().ok());
        self.partition.zip(of).map_or(Slice::ALL, |(number, of)| Slice { number, of })
    }
}

/// As stores keep it: `log`, `log:4/3`, or `order-events/3`.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            None => f.write_str(&self.source),
            Some(partition) => write!(f, "{}/{partition}", self.source),
        }
    }
}

/// What stores keep.
impl From<&str> for Shard {
    fn from(stored: &str) -> Self {
        let parts = stored.split_once('/').and_then(|(source, number)| Some((source, number.parse().ok()?)));
        parts.map_or_else(|| Self::whole(stored), |(source, number)| Self::partition(source, number))
    }
}

/// The keys that are handled in one shard of a source that is split by keys; of any other source, all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    number: u32,
    of: u32,
}

impl Slice {
    /// All keys.
    pub const ALL: Self = Self { number: 0, of: 1 };

    /// Whether `key` is handled in it. The answer is the same in each program and version: stored checkpoints rely on it.
    pub fn holds(self, key: &str) -> bool {
        self.of <= 1 || hash(key) % u64::from(self.of) == u64::from(self.number)
    }
}

/// FNV-1a, with the finalizer of `MurmurHash3`: FNV alone leaves its low bits to the low bits of the key.
fn hash(key: &str) -> u64 {
    let fnv = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut hash = fnv;
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// A shard whose lease holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The shard.
    pub shard: Shard,
    /// The worker that holds it.
    pub owner: Uuid,
    /// Whether another worker asks for it already.
    pub is_asked_for: bool,
}

/// The shards for which `worker` asks others, so that each holds about as many: half of what the worker with most has more. That is
/// none where no worker has at least two more. A worker that was asked already is not asked again before it has answered.
pub(crate) fn to_ask_for(shares: &[Share], worker: Uuid) -> Vec<Shard> {
    let mut held: BTreeMap<Uuid, Vec<&Share>> = BTreeMap::new();
    for share in shares {
        held.entry(share.owner).or_default().push(share);
    }
    let own = held.remove(&worker).map_or(0, |shares| shares.len());
    held.retain(|_, shares| shares.iter().all(|share| !share.is_asked_for));
    let Some(most) = held.into_values().max_by_key(Vec::len) else { return Vec::new() };
    let more = most.len().saturating_sub(own);
    most.into_iter().take(more / 2).map(|share| share.shard.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_read_as_it_is_written() {
        let split = Shard::split("log", 3).remove(2);
        assert_eq!(split.to_string(), "log:3/2");
        for shard in [Shard::whole("log"), split, Shard::partition("order-events", 0), Shard::partition("a", u32::MAX)]
        {
            assert_eq!(Shard::from(&*shard.to_string()), shard);
        }
        let mut sorted = [10, 9, 1].map(|partition| Shard::partition("topic", partition));
        sorted.sort_unstable();
        assert_eq!(sorted.map(|shard| shard.partition), [Some(1), Some(9), Some(10)]);
    }

    #[test]
    fn a_source_that_is_not_split_has_all_keys_in_each_shard() {
        for shard in [Shard::whole("log"), Shard::partition("order-events", 3), Shard::split("log", 1).remove(0)] {
            assert_eq!(shard.slice(), Slice::ALL, "{shard}");
            assert!(shard.slice().holds("a"));
        }
    }

    #[test]
    fn r9_each_key_is_in_one_shard_and_always_in_the_same_one() {
        for of in [2, 3, 8] {
            let slices: Vec<_> = Shard::split("log", of).iter().map(Shard::slice).collect();
            let mut counts = vec![0_u32; slices.len()];
            // Keys that differ in two bytes alike: their parity does not tell them apart.
            for number in 0..1_000 {
                let key = format!("order-{:02}{:02}", number / 100, number / 100);
                let key = format!("{key}-{number}{number}");
                let held: Vec<_> = (0..slices.len()).filter(|nth| slices[*nth].holds(&key)).collect();
                assert_eq!(held.len(), 1, "{key}");
                counts[held[0]] += 1;
            }
            let mean = 1_000 / of;
            assert!(counts.iter().all(|count| count.abs_diff(mean) < mean / 3), "{counts:?}");
        }
        // Checkpoints that are stored rely on these.
        assert_eq!(["", "a", "order-1", "größe"].map(|key| hash(key) % 4), [2, 3, 1, 1]);
    }

    #[test]
    fn r18_workers_share_shards_evenly() {
        let [one, other, third] = [1, 2, 3].map(Uuid::from_u128);
        let share =
            |number, owner, is_asked_for| Share { shard: Shard::partition("log:8", number), owner, is_asked_for };
        let of_one =
            |count: u32, is_asked_for| (0..count).map(|number| share(number, one, is_asked_for)).collect::<Vec<_>>();
        let asked = |shares: &[Share], worker| to_ask_for(shares, worker).len();
        for (count, half) in [(0, 0), (1, 0), (2, 1), (3, 1), (8, 4)] {
            assert_eq!(asked(&of_one(count, false), other), half, "{count}");
            assert_eq!(asked(&of_one(count, false), one), 0, "it asks itself for none");
        }
        let mut shares = of_one(4, true);
        assert_eq!(asked(&shares, other), 0, "it was asked");
        shares.extend([share(4, other, false), share(5, other, false)]);
        assert_eq!(to_ask_for(&shares, third), [Shard::partition("log:8", 4)], "the other one was not");
        assert_eq!(asked(&shares[4..], one), 1);
        shares.truncate(5);
        assert_eq!(asked(&shares, third), 0, "one more is no reason");
    }
}
