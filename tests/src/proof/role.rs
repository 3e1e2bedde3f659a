//! What a process of the proof does.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use es_core::{
    EventStore, Service, Throttle,
    backend::{BoxError, EventSource},
    service::Parts,
};
use es_postgres::PostgresStore;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::accounts::{self, Balances};

/// How often a rebuild tells how far it is.
const TELLS: Duration = Duration::from_millis(20);

/// What a process does, as its argument. It ends when the process that started it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Role {
    /// Appends at a steady rate, and prints how many microseconds each append took.
    Writer {
        /// The store.
        url: String,
        /// Appends a second.
        rate: u32,
        /// To how many accounts.
        accounts: u64,
    },
    /// Rebuilds the read model, and prints how far it is from time to time and at last.
    Rebuild(Rebuild),
}

/// How a process rebuilds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rebuild {
    /// The store.
    pub url: String,
    /// The limit of its throttle.
    pub append_p99: Option<Duration>,
    /// As `Projector::document_bytes`.
    pub document_bytes: Option<usize>,
    /// The position at which it waits to be killed.
    pub waits_at: Option<u64>,
}

/// What a rebuild tells of itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// The first event that it has folded.
    pub(super) first: u64,
    /// The last one, written or not.
    pub(super) folded: u64,
    /// The most memory that the process has had, in bytes.
    pub(super) peak: u64,
    /// The part of the time that the throttle leaves.
    pub(super) share: Option<f64>,
    /// Whether it waits to be killed.
    pub(super) waits: bool,
    /// How long it took; `None` while it is not done.
    pub(super) took: Option<Duration>,
}

impl Role {
    /// Does it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn act(self) -> Result<(), BoxError> {
        std::thread::spawn(|| {
            // The parent closes the other end, or the kernel does when the parent has ended.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(1);
        });
        match self {
            Self::Writer { url, rate, accounts } => write(&url, rate, accounts).await,
            Self::Rebuild(how) => rebuild(how).await,
        }
    }
}

/// An open loop: an append that takes long does not delay the next one.
async fn write(url: &str, rate: u32, accounts: u64) -> Result<(), BoxError> {
    let store = PostgresStore::connect(url).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        ticks.tick().await;
        let (store, append) = (store.clone(), accounts::append(number, accounts));
        tokio::spawn(async move {
            let began = Instant::now();
            match store.append(append).await {
                Ok(_) => tell(&began.elapsed().as_micros()),
                Err(error) => {
                    eprintln!("an append failed: {error:?}");
                    std::process::exit(1);
                }
            }
        });
    }
    Ok(())
}

async fn rebuild(how: Rebuild) -> Result<(), BoxError> {
    let store = PostgresStore::connect(&how.url).await?;
    let balances = Balances { waits_at: how.waits_at, ..Balances::default() };
    let (first, waits, bytes) = (balances.first.clone(), balances.waits.clone(), how.document_bytes);
    let builder = Service::builder("proof", store).projection_with(balances, move |projector| match bytes {
        Some(bytes) => projector.document_bytes(bytes),
        None => projector,
    });
    let service = builder.parts(Parts::None).start().await?;
    let throttle = how.append_p99.map(|limit| Throttle::keeping(limit, service.store()));
    let log: Arc<dyn EventSource> = Arc::new(service.log());
    let source = throttle.as_ref().map_or_else(|| log.clone(), |throttle| throttle.on(log.clone()));
    let began = Instant::now();
    let told = {
        let (service, throttle) = (service.clone(), throttle.clone());
        move |took| -> Result<Told, BoxError> {
            Ok(Told {
                first: first.load(Ordering::Relaxed),
                folded: service.rebuilding("balances")?.unwrap_or_default().get(),
                peak: peak()?,
                waits: waits.load(Ordering::Relaxed),
                share: throttle.as_ref().map(|throttle| throttle.state().share),
                took,
            })
        }
    };
    // On a thread of its own: folds keep the runtime busy, and one that waits to be killed may stop its timers.
    let (done, is_done) = mpsc::channel::<()>();
    let telling = std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(TELLS) {
            tell(&told(None)?);
        }
        tell(&told(Some(began.elapsed()))?);
        Ok::<_, BoxError>(())
    });
    // On a thread of the pool, where engines are.
    let rebuilding = service.clone();
    let rebuilt = tokio::spawn(async move { rebuilding.rebuild::<Balances>(source, CancellationToken::new()).await });
    rebuilt.await??.ok_or("it was interrupted")?;
    drop(done);
    telling.join().map_err(|_| "it panicked")??;
    service.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

fn tell(what: &impl Serialize) {
    let line = serde_json::to_string(what).unwrap_or_default();
    // Without a parent there is nothing to tell.
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// The most memory that this process has had, in bytes.
fn peak() -> Result<u64, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the kernel does not tell")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
