//! What an event takes in memory.

use es_core::RecordedEvent;

/// What an allocation takes beside what is in it.
const ALLOCATION: usize = 16;
/// The counters in front of what several owners share.
const COUNTERS: usize = 16;
/// What a map takes for an entry, beside its texts.
const ENTRY: usize = 2 * size_of::<String>() + 8;

/// How many bytes `event` takes in memory: its payload, and all that is known about it.
pub(crate) fn weight(event: &RecordedEvent) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.capacity() + ALLOCATION);
    let metadata = &event.metadata;
    let extra = metadata.extra.iter().map(|(key, value)| key.capacity() + value.capacity() + 2 * ALLOCATION + ENTRY);
    size_of::<RecordedEvent>()
        + event.data.payload.len()
        + ALLOCATION
        + event.stream.as_str().len()
        + event.data.name.len()
        + 2 * (ALLOCATION + COUNTERS)
        + [&metadata.traceparent, &metadata.tracestate, &metadata.actor].map(text).into_iter().sum::<usize>()
        + extra.sum::<usize>()
}
