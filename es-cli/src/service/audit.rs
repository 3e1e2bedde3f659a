//! `verify` and `as-of`.

use chrono::{DateTime, Utc};
use clap::Args;
use es_core::{
    Position, Service, Version,
    backend::{Amendment, Extent, counted},
    read::refold::{Difference, Moment, RefoldError},
};
use serde::Serialize;
use serde_json::Value;

use super::{live, unknown};
use crate::{
    act::{Actor, Consent},
    end::{CommandError, Outcome},
    event::Data,
    output::{Format, Output},
    time,
};

/// How many fields of a document are named at most.
const FIELDS: usize = 10;

/// Which read model to verify.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// The read model
    projection: String,

    /// Compares only this part of all documents, for example 1%: always the same ones
    #[arg(long, value_name = "PART", value_parser = share, default_value = "100%")]
    sample: f64,

    /// Prints the documents that differ, too. They may be personal
    #[arg(long)]
    data: bool,

    /// Writes the documents that differ as they follow from the log, each with a record. Without it nothing is changed
    #[arg(long, requires = "reason")]
    heal: bool,

    /// Why they are mended; it is recorded
    #[arg(long, value_name = "TEXT", requires = "heal")]
    reason: Option<String>,

    #[command(flatten)]
    actor: Actor,

    #[command(flatten)]
    consent: Consent,

    #[command(flatten)]
    format: Format,
}

/// `1%`, `0.5%` or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    share
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "write a part of all documents, for example 1%".to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Differs<'a> {
    key: &'a str,
    kind: &'static str,
    fields: Vec<String>,
    /// Declared fields whose stored values are not those of the stored document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found_by: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Waits<'a> {
    key: &'a str,
    kind: &'static str,
}

/// What an operator has decided, as `actions` has it too.
#[derive(Serialize)]
struct Amended<'a> {
    kind: &'static str,
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
}

impl<'a> Amended<'a> {
    fn of(Amendment { position, extent, payload, .. }: &'a Amendment) -> Self {
        let (kind, key, shard) = match (extent, payload) {
            (Extent::Key(key), Some(_)) => ("edited", Some(&**key), None),
            (Extent::Key(key), None) => ("discarded", Some(&**key), None),
            (Extent::Shard(shard), _) => ("skipped", None, Some(shard.to_string())),
        };
        Self { kind, position: position.get(), key, shard }
    }

    fn print(&self, format: Format, output: &mut Output) -> std::io::Result<()> {
        let Self { kind, position, key, shard } = self;
        if format.json {
            return output.json(self);
        }
        match (key, shard) {
            (Some(key), _) => output.line(format_args!("{kind:<9} position {position} for {key:?}")),
            (None, Some(shard)) => output.line(format_args!("{kind:<9} position {position} in shard {shard}")),
            (None, None) => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    projection: &'a str,
    version: u32,
    generation: i64,
    position: u64,
    compared: u64,
    differing: u64,
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mended: Option<u64>,
}

impl Verify {
    pub(super) async fn run(self, service: &Service, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self { projection, sample, data, heal, reason, actor, consent, format } = self;
        let act = reason.filter(|_| heal).map(|reason| actor.act(&reason)).transpose()?;
        let what = || format!("documents of {projection} that differ from the log will be overwritten");
        if act.is_some() && !consent.to(&what())? {
            return Ok(Outcome::No);
        }
        let mut printed = Ok(());
        let mut report = |difference| {
            if printed.is_ok() {
                printed = print(&difference, data, format, output);
            }
        };
        let verified = match &act {
            Some(act) => service.heal_named(&projection, sample, act, &mut report).await?,
            None => service.verify_named(&projection, sample, &mut report).await?,
        };
        let mended = act.map(|_| verified.mended);
        printed?;
        let (compared, differing, waiting) = (verified.compared, verified.differing, verified.waiting.len() as u64);
        for amendment in &verified.amended {
            Amended::of(amendment).print(format, output)?;
        }
        for key in &verified.waiting {
            if format.json {
                output.json(&Waits { key, kind: "waiting" })?;
            } else {
                output.line(format_args!("waiting   {key:?}"))?;
            }
        }
        if format.json {
            output.json(&Summary {
                projection: &projection,
                version: verified.generation.version,
                generation: verified.generation.reader.id,
                position: verified.position.get(),
                compared,
                differing,
                waiting,
                mended,
            })?;
        } else {
            let position = verified.position;
            output.line(format_args!(
                "compared {} up to position {position}: {differing} {}",
                counted(compared, "document"),
                if differing == 1 { "differs" } else { "differ" }
            ))?;
            if let Some(mended) = mended {
                output.line(format_args!("mended {mended}"))?;
            }
            if waiting > 0 {
                let waits = if waiting == 1 { "waits: it is" } else { "wait: they are" };
                output.line(format_args!("{} {waits} parked, or the reader has stopped", counted(waiting, "key")))?;
            }
        }
        output.flush()?;
        Ok(if differing == mended.unwrap_or_default() { Outcome::Well } else { Outcome::No })
    }
}

fn print(difference: &Difference, data: bool, format: Format, output: &mut Output) -> std::io::Result<()> {
    let (stored, folded) = (difference.stored.as_deref(), difference.folded.as_deref());
    let (kind, fields) = match (stored, folded) {
        (None, _) => ("missing", Vec::new()),
        (_, None) => ("extra", Vec::new()),
        // The document is right.
        (Some(stored), Some(folded)) if stored == folded => ("misplaced", Vec::new()),
        (Some(stored), Some(folded)) => ("differs", differing(stored, folded)),
    };
    let found_by = difference.fields.clone();
    if format.json {
        let (stored, folded) = (stored.filter(|_| data).map(Data::of), folded.filter(|_| data).map(Data::of));
        return output.json(&Differs { key: &difference.key, kind, fields, found_by, stored, folded });
    }
    let key = &difference.key;
    match kind {
        "missing" => output.line(format_args!("missing   {key:?}"))?,
        "extra" => output.line(format_args!("extra     {key:?}"))?,
        "misplaced" => {}
        _ => output.line(format_args!("differs   {key:?} in {}", fields.join(", ")))?,
    }
    if !found_by.is_empty() {
        output.line(format_args!("misplaced {key:?} is found by other values of {}", found_by.join(", ")))?;
    }
    for (name, document) in [("stored", stored), ("folded", folded)] {
        if let Some(document) = document.filter(|_| data) {
            output.line(format_args!("          {name}: {}", Data::of(document).text()))?;
        }
    }
    Ok(())
}

/// The fields in which two documents differ, as JSON pointers; the whole document is `/`.
pub(super) fn differing(stored: &[u8], folded: &[u8]) -> Vec<String> {
    let mut fields = Vec::new();
    match (serde_json::from_slice(stored), serde_json::from_slice(folded)) {
        (Ok(stored), Ok(folded)) => compare(&stored, &folded, &mut String::new(), &mut fields),
        _ => fields.push("/ (what is stored is no JSON)".to_owned()),
    }
    fields
}

fn compare(stored: &Value, folded: &Value, at: &mut String, fields: &mut Vec<String>) {
    if stored == folded || fields.len() >= FIELDS {
        return;
    }
    let below = |name: &str, one: Option<&Value>, other: Option<&Value>, at: &mut String, fields: &mut Vec<String>| {
        let length = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        compare(one.unwrap_or(&Value::Null), other.unwrap_or(&Value::Null), at, fields);
        at.truncate(length);
    };
    match (stored, folded) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                below(name, one.get(name), other.get(name), at, fields);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            let longest = one.len().max(other.len());
            for index in 0..longest {
                below(&index.to_string(), one.get(index), other.get(index), at, fields);
            }
        }
        _ => fields.push(if at.is_empty() { "/".to_owned() } else { at.clone() }),
    }
}

/// Which document to fold, and up to where.
#[derive(Debug, Clone, Args)]
pub(crate) struct AsOf {
    /// The read model
    projection: String,

    /// The key of the document
    key: String,

    #[command(flatten)]
    moment: UpTo,

    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
struct UpTo {
    /// Up to this position of the log
    #[arg(long, value_name = "N")]
    position: Option<u64>,

    /// Up to this version, of the one stream that feeds the document
    #[arg(long, value_name = "N")]
    version: Option<u64>,

    /// Up to this time, by the clock of the store, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    time: Option<DateTime<Utc>>,
}

impl UpTo {
    fn moment(self) -> Moment {
        match (self.position, self.version, self.time) {
            (Some(position), ..) => Moment::Position(Position::new(position)),
            (_, Some(version), _) => Moment::Version(Version::new(version)),
            (.., Some(time)) => Moment::Time(time),
            (None, None, None) => Moment::Now,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Folded<'a> {
    projection: &'a str,
    key: &'a str,
    position: u64,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_at: Option<u64>,
    document: Data<'a>,
}

impl AsOf {
    pub(super) async fn run(self, service: &Service, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self { projection, key, moment, format } = self;
        let found = service.as_of_named(&projection, &key, moment.moment()).await?;
        let Some(document) = &found.document else {
            let waits = found.waits_at.map(|at| format!(": it waits from the event at position {at} on"));
            let text = format!("{projection} had no document {key:?} then{}", waits.unwrap_or_default());
            return Err(CommandError::Missing(text));
        };
        let document = Data::of(document);
        if format.json {
            let (position, events) = (found.position.get(), found.events);
            let waits_at = found.waits_at.map(Position::get);
            output.json(&Folded { projection: &projection, key: &key, position, events, waits_at, document })?;
        } else {
            output.line(document.text())?;
            output.flush()?;
            if let Some(at) = found.waits_at {
                eprintln!("{key:?} waits from the event at position {at} on: it is parked, or the reader has stopped");
            }
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

impl From<RefoldError> for CommandError {
    fn from(error: RefoldError) -> Self {
        match error {
            RefoldError::Unknown { name, known } => unknown("read model", &name, &known),
            RefoldError::Live { name } => live(name, &error),
            RefoldError::NoVersions { .. } => Self::usage(error.to_string(), "pass --position or --time"),
            RefoldError::NoSuchVersion { .. } | RefoldError::NoSuchPosition { .. } => Self::Missing(error.to_string()),
            RefoldError::Log(error) => error.into(),
            RefoldError::ReadModel(error) => error.into(),
            RefoldError::NotServing | RefoldError::Replaced => {
                Self::Unfit { cause: error.into(), advice: "wait until it serves, and verify it again".to_owned() }
            }
            RefoldError::NoDocuments { .. } => {
                let advice = "`rebuild` it: it is folded again from the first event while it serves".to_owned();
                Self::Unfit { cause: error.into(), advice }
            }
            RefoldError::OtherVersion { serving, .. } => {
                let advice = format!("use the program of version {serving}, or `rebuild` it");
                Self::Unfit { cause: error.into(), advice }
            }
            RefoldError::TooManyDiffer { .. } => Self::Unfit { cause: error.into(), advice: "`rebuild` it".to_owned() },
            RefoldError::Uneven { .. } | RefoldError::TooFast => {
                let advice = "verify it again while no client writes, or `rebuild` it".to_owned();
                Self::Unfit { cause: error.into(), advice }
            }
            error if error.is_transient() => Self::Unfit { cause: error.into(), advice: "verify it again".to_owned() },
            error => {
                let advice = "correct the projection, or rebuild the read model".to_owned();
                Self::Unfit { cause: error.into(), advice }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use es_core::{EngineError, backend::Shard};

    use super::*;

    #[test]
    fn a_sample_is_a_part_of_all() {
        assert_eq!(["1%", "0.5%", "100%", "0.25", "1"].map(share), [Ok(0.01), Ok(0.005), Ok(1.0), Ok(0.25), Ok(1.0)]);
        for text in ["", "%", "0", "0%", "101%", "2", "-1%", "NaN", "some"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    /// R22
    #[test]
    fn r22_what_operators_have_decided_is_named() {
        let (position, payload) = (Position::new(5), Some("{}".into()));
        let told = |extent, payload| {
            let amendment = Amendment { position, extent, payload };
            serde_json::to_value(Amended::of(&amendment)).expect("JSON")
        };
        let (key, shard) = (|| Extent::Key("a".into()), Extent::Shard("log:2/1".into()));
        assert_eq!(told(key(), payload), serde_json::json!({"kind": "edited", "position": 5, "key": "a"}));
        assert_eq!(told(key(), None), serde_json::json!({"kind": "discarded", "position": 5, "key": "a"}));
        assert_eq!(told(shard, None), serde_json::json!({"kind": "skipped", "position": 5, "shard": "log:2/1"}));
    }

    /// Two who mend at once take the leases from each other. Seen to fail where the advice was to correct the projection.
    #[test]
    fn what_may_succeed_the_next_time_is_no_fault_of_the_projection() {
        let fenced = RefoldError::Fold(EngineError::Fenced(Shard::whole("log")));
        assert_eq!(CommandError::from(fenced).advice(), Some("verify it again"));
        let order = RefoldError::Fold(EngineError::NotPerStream);
        assert_eq!(CommandError::from(order).advice(), Some("correct the projection, or rebuild the read model"));
    }

    #[test]
    fn fields_that_differ_are_named() {
        let fields = |one: &str, other: &str| differing(one.as_bytes(), other.as_bytes());
        assert_eq!(fields(r#"{"a":1,"b":[1,{"c/d":2}]}"#, r#"{"b":[1,{"c/d":3}],"e":0}"#), ["/a", "/b/1/c~1d", "/e"]);
        assert_eq!(fields("[1,2]", "[1]"), ["/1"]);
        assert_eq!(fields("1", "2"), ["/"]);
        assert_eq!(fields("no JSON", "2").len(), 1);
        let many = |value: u32| serde_json::to_string(&vec![value; 100]).expect("JSON");
        assert_eq!(fields(&many(0), &many(1)).len(), FIELDS);
    }
}
