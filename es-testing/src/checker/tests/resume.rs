//! Clients of a process that was killed.

use super::{
    super::{client::Client, session::Session},
    *,
};

async fn go_on(plan: &Arc<Plan>, records: &[Record]) -> Vec<Record> {
    let recorder = Arc::new(Recorder::in_memory());
    let (plan, stores) = (plan.clone(), vec![Arc::new(MemoryStore::new()) as _]);
    let session = Session { plan, process: 0, stores, recorder: recorder.clone() };
    Client::resume(Arc::new(session), 0, records.iter()).run().await;
    recorder.history().expect("it is in memory").records
}

fn calls(records: &[Record]) -> impl Iterator<Item = (CallId, &Call)> {
    records.iter().filter_map(|record| match record {
        Record::Called { id, call, .. } => Some((*id, call)),
        _ => None,
    })
}

fn is_of(record: &Record, call: CallId, has_returned: bool) -> bool {
    match record {
        Record::Called { id, .. } => *id == call,
        Record::Returned { id, .. } => *id == call && has_returned,
        _ => false,
    }
}

/// R6: a retry carries the same ids.
#[tokio::test]
async fn a_client_sends_again_what_was_in_progress() {
    let plan = Arc::new(Plan::new(3, &Size { clients: 1, operations: 25, ..Size::default() }));
    let whole = go_on(&plan, &[]).await;
    let mut most = 0;
    for (end, last) in calls(&whole).enumerate() {
        // As with a real store, which is not as fast: no call of the last operation has returned yet.
        let former: Vec<Record> = calls(&whole)
            .take(end + 1)
            .flat_map(|(id, _)| whole.iter().filter(move |record| is_of(record, id, id.number < last.0.number)))
            .cloned()
            .collect();
        let former = &former[..];
        let returned = |id: CallId| id.number < last.0.number;
        let open: Vec<&Call> = calls(former)
            .filter(|(id, call)| !call.sent().is_empty() && !returned(*id))
            .map(|(_, call)| call)
            .collect();
        let later = go_on(&plan, former).await;
        let first: Vec<&Call> = calls(&later).take(open.len()).map(|(_, call)| call).collect();
        assert!(open.iter().all(|call| first.contains(call)), "killed after the call {end}");
        let known: Vec<CallId> = calls(former).map(|(id, _)| id).collect();
        assert!(calls(&later).all(|(id, _)| !known.contains(&id)), "killed after the call {end}");
        most = most.max(open.len());
    }
    assert!(most > 2, "a chain was under way");
}
