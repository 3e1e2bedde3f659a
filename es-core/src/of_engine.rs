//! Whether an engine asks a store, or a caller who reads or writes.
//!
//! A store has few connections, and callers may have all of them for long. It keeps one for engines, so that these go on.

tokio::task_local! {
    static ENGINE: ();
}

/// Does `work` as an engine. What it spawns does not.
pub async fn of_engine<W: Future>(work: W) -> W::Output {
    ENGINE.scope((), work).await
}

/// Whether this is asked in the work of an engine.
pub fn is_of_engine() -> bool {
    ENGINE.try_with(|()| ()).is_ok()
}

/// `work`, which is spawned, as an engine if that is one which spawns it.
pub fn likewise<W: Future>(work: W) -> impl Future<Output = W::Output> {
    let is_of_engine = is_of_engine();
    async move { if is_of_engine { of_engine(work).await } else { work.await } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_work_of_an_engine_and_what_it_hands_on_is_its_own() {
        let asked = || async { is_of_engine() };
        assert!(!asked().await && !likewise(asked()).await);
        let (own, spawned, handed_on) = of_engine(async {
            let spawned = tokio::spawn(asked()).await.expect("no panic");
            let handed_on = tokio::spawn(likewise(asked())).await.expect("no panic");
            (asked().await, spawned, handed_on)
        })
        .await;
        assert_eq!((own, spawned, handed_on), (true, false, true));
    }
}
