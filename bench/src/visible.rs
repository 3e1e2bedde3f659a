//! How long after its commit a write is visible in a read model, in the process that has written and in another one, and what it
//! costs to follow while nothing is written.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use es_core::{ReadModel, Repository};

use crate::{
    account::{Account, Deposit},
    database::{Database, Server},
    embedded::Files,
    follower::{self, Elsewhere, Follower, Role, Seen},
    ours::Balances,
    sheet::{Bound, Figure, Sheet},
    usage::{self, Meter},
};

/// Where the read model is kept, and who waits.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: &'static str,
    /// Whether the process that writes keeps it. It waits after each write, unless another one waits.
    keeps: bool,
    /// What another process does.
    there: Option<Role>,
}

impl Place {
    /// Whether the caller that has written waits.
    fn waits(self) -> bool {
        self.there.is_none_or(|role| !role.waits)
    }
}

const BOTH: Role = Role { projects: true, waits: true };

const PLACES: [Place; 3] = [
    Place { name: "to the writer, kept here", keeps: true, there: None },
    Place { name: "to the writer, kept elsewhere", keeps: false, there: Some(Role { projects: true, waits: false }) },
    Place { name: "to another process", keeps: false, there: Some(BOTH) },
];

/// The first writes find connections and caches that are not there yet.
const WARM_UP: u32 = 4;

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visible {
    /// How it is chosen on the command line.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) title: &'static str,
    is_embedded: bool,
    /// How many writes a second; none for the cost of following.
    writes_a_second: Option<u32>,
}

/// All of them, in the order of the report.
pub(crate) const ALL: [Visible; 6] = [
    Visible::new("visible-5", "From a commit until it is visible: one writer at 5/s", false, Some(5)),
    Visible::new("visible-100", "From a commit until it is visible: one writer at 100/s", false, Some(100)),
    Visible::new("visible-idle", "A process that follows and waits while nothing is written", false, None),
    Visible::new("sqlite-visible-5", "From a commit until it is visible on SQLite: one writer at 5/s", true, Some(5)),
    Visible::new(
        "sqlite-visible-100",
        "From a commit until it is visible on SQLite: one writer at 100/s",
        true,
        Some(100),
    ),
    Visible::new(
        "sqlite-visible-idle",
        "A process that follows and waits on SQLite while nothing is written",
        true,
        None,
    ),
];

impl Visible {
    const fn new(name: &'static str, title: &'static str, is_embedded: bool, writes_a_second: Option<u32>) -> Self {
        Self { name, title, is_embedded, writes_a_second }
    }

    /// Measures in a database of its own.
    pub(crate) async fn run(&self, server: &Server, rounds: usize, quick: bool) -> Result<Sheet> {
        let files = self.is_embedded.then(Files::new).transpose()?;
        let url = match &files {
            Some(files) => files.create(self.name),
            None => server.create(self.name, Duration::ZERO).await?,
        };
        follower::close(&*follower::open(&url).await?).await?;
        let figures = match self.writes_a_second {
            Some(writes) => self.times(&url, writes, rounds, quick).await?,
            None => self.idle(&url, rounds, quick).await?,
        };
        if files.is_none() {
            server.drop(self.name).await?;
        }
        Ok(Sheet { name: self.name.to_owned(), title: self.title.to_owned(), figures })
    }

    async fn times(&self, url: &str, writes_a_second: u32, rounds: usize, quick: bool) -> Result<Vec<Figure>> {
        let mut measured = PLACES.map(|place| (place, Vec::new(), Vec::new()));
        let writes = if quick { 20 } else { (writes_a_second * 5).max(100) };
        for round in 1..=rounds {
            for (place, medians, most) in &mut measured {
                let times = times(url, *place, writes_a_second, writes).await?;
                let [p50, p99] = [50, 99].map(|share| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3);
                eprintln!("{:20} {round}/{rounds} {:30} p50 {p50:.2} p99 {p99:.2} ms", self.name, place.name);
                medians.push(p50);
                most.push(p99);
            }
        }
        let figures = measured.into_iter().flat_map(|(Place { name, .. }, medians, most)| {
            let p50 = Figure::of(format!("{name}: p50 ms"), medians, Some(Bound::AtMost(5.0)));
            [p50, Figure::of(format!("{name}: p99 ms"), most, Some(Bound::AtMost(25.0)))]
        });
        Ok(figures.collect())
    }

    /// The share of a processor of a process that keeps a read model and waits for the next write, and of its server.
    async fn idle(&self, url: &str, rounds: usize, quick: bool) -> Result<Vec<Figure>> {
        let elsewhere = Elsewhere::start(url, BOTH).await?;
        let process = elsewhere.id().context("it has ended")?;
        let mut database = Database::open(url).await?;
        let seconds = if quick { 1.0 } else { 10.0 };
        // The pauses between looks have become as long as they become.
        tokio::time::sleep(Duration::from_secs(41)).await;
        let (mut own, mut servers) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let meter = Meter::start(&mut database).await?;
            let before = usage::seconds_of(process).context("it has ended")?;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            let used = usage::seconds_of(process).context("it has ended")? - before;
            own.push(used / seconds * 100.0);
            servers.extend(meter.stop(&mut database).await?.server_seconds.map(|used| used / seconds * 100.0));
            eprintln!("{:20} {round}/{rounds} {:.3} % of a processor", self.name, used / seconds * 100.0);
        }
        elsewhere.end(0).await?;
        let own = Figure::of("the process: % of a processor", own, Some(Bound::AtMost(0.5)));
        let server = (!servers.is_empty()).then(|| Figure::of("the server: % of a processor", servers, None));
        Ok([own].into_iter().chain(server).collect())
    }
}

/// The times from the answer to a write until it is visible, sorted.
async fn times(url: &str, place: Place, writes_a_second: u32, writes: u32) -> Result<Vec<Duration>> {
    let store = follower::open(url).await?;
    let keeps = Role { projects: place.keeps, waits: false };
    let here = Follower::start(&store, keeps).await?;
    let there = match place.there {
        Some(role) => Some(Elsewhere::start(url, role).await?),
        None => None,
    };
    let (accounts, model) = (Repository::<Account>::new(store.clone()), ReadModel::<Balances>::new(store.clone()));
    let mut pauses = Pauses::of(Duration::from_secs(1) / writes_a_second);
    let (mut times, mut committed) = (Vec::new(), Vec::new());
    let mut due = Instant::now();
    for turn in 0..WARM_UP + writes {
        due = (due + pauses.next()).max(Instant::now());
        tokio::time::sleep_until(due.into()).await;
        let receipt = accounts.execute("a", Deposit { times: 1 }).await?;
        let (answered, at) = (Instant::now(), follower::now());
        if place.waits() {
            model.wait_for(receipt.token, follower::PATIENCE).await?;
        }
        if turn >= WARM_UP {
            times.push(answered.elapsed());
            committed.push((receipt.position.context("an event")?.get(), at));
        }
    }
    let (last, _) = *committed.last().context("a write")?;
    here.end(last).await?;
    let seen = match there {
        Some(there) => there.end(last).await?,
        None => Seen::new(),
    };
    follower::close(&*store).await?;
    if !place.waits() {
        let visible = |(position, at): (u64, u64)| {
            let seen = seen.get(&position).with_context(|| format!("position {position} was not seen"))?;
            // It may be visible before the writer has its answer.
            Ok(Duration::from_nanos(seen.saturating_sub(at)))
        };
        times = committed.into_iter().map(visible).collect::<Result<_>>()?;
    }
    times.sort_unstable();
    Ok(times)
}

/// Pauses from half of their mean to one and a half: followers look at pauses that depend on the last write, so equal ones would
/// always meet them at the same point.
struct Pauses {
    mean: Duration,
    state: u32,
}

impl Pauses {
    fn of(mean: Duration) -> Self {
        Self { mean, state: 1 }
    }

    fn next(&mut self) -> Duration {
        // The generator of Numerical Recipes; its upper bits are good enough.
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.mean.mul_f64(0.5 + f64::from(self.state) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_their_mean() {
        let mut pauses = Pauses::of(Duration::from_millis(200));
        let all: Vec<_> = (0..1_000).map(|_| pauses.next()).collect();
        let mean = all.iter().sum::<Duration>() / 1_000;
        assert!((190..=210).contains(&mean.as_millis()), "{mean:?}");
        assert!(all.iter().all(|pause| (100..=300).contains(&pause.as_millis())));
    }
}
