//! `what-if`.

use clap::Args;
use es_core::{
    EventData, Position, Service, StreamId,
    backend::counted,
    error::with_causes,
    read::refold::{Alternative, Hindered, RefoldError, WhatIf},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::audit::differing;
use crate::{
    end::{CommandError, Outcome},
    event::Data,
    output::{Format, Output},
};

/// Which read model to fold, and how the history differs.
#[derive(Debug, Clone, Args)]
#[group(id = "changes")]
pub(crate) struct WhatIfCommand {
    /// The read model
    projection: String,

    /// Leaves out the event at this position of the log
    #[arg(long, value_name = "N")]
    without: Vec<u64>,

    /// Replaces the payload of the event at a position, for example 17={"amount":"5"}
    #[arg(long, value_name = "N=JSON", value_parser = replacement)]
    replace: Vec<(u64, String)>,

    /// Adds an event after the last one, as if it was appended now: its stream, name, schema version and payload, for example
    /// 'order-7 order.paid 1 {"customer":"USR-1","amount":"5"}'
    #[arg(long, value_name = "EVENT", value_parser = event)]
    add: Vec<(StreamId, EventData)>,

    /// Prints the documents, too. They may be personal
    #[arg(long)]
    data: bool,

    #[command(flatten)]
    format: Format,
}

fn json(text: &str) -> Result<String, String> {
    serde_json::from_str::<&RawValue>(text)
        .map(|text| text.get().to_owned())
        .map_err(|_| "the payload is no JSON".to_owned())
}

fn replacement(text: &str) -> Result<(u64, String), String> {
    let (position, payload) = text.split_once('=').ok_or("write a position, = and the payload")?;
    let position = position.trim().parse().map_err(|_| "write a position of the log before the =")?;
    Ok((position, json(payload)?))
}

fn event(text: &str) -> Result<(StreamId, EventData), String> {
    let mut parts = text.splitn(4, ' ');
    let mut part = || parts.next().ok_or("write the stream, the name, the schema version and the payload");
    let stream = part()?.parse::<StreamId>().map_err(|error| error.to_string())?;
    let name = part()?.into();
    let schema_version = part()?.parse().map_err(|_| "the schema version is a number")?;
    Ok((stream, EventData { name, schema_version, payload: json(part()?)?.into() }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Differs<'a> {
    key: &'a str,
    kind: &'static str,
    fields: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypothetical: Option<Data<'a>>,
}

impl WhatIfCommand {
    pub(super) async fn run(self, service: &Service, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self { projection, without, replace, add, data, format } = self;
        let changes = without.into_iter().fold(WhatIf::default(), |changes, at| changes.without(Position::new(at)));
        let changes =
            replace.into_iter().fold(changes, |changes, (at, payload)| changes.replacing(Position::new(at), payload));
        let changes = add.into_iter().fold(changes, |changes, (stream, event)| changes.adding(stream, event));
        let found = service.what_if_named(&projection, &changes).await.map_err(|error| match error {
            RefoldError::Fold(_) | RefoldError::Added { .. } => {
                let advice =
                    "give each event the whole payload of its type and schema version, or correct the projection";
                CommandError::Unfit { cause: error.into(), advice: advice.to_owned() }
            }
            error => error.into(),
        })?;
        for alternative in &found.documents {
            print(alternative, data, format, output)?;
        }
        for Hindered { key, position, error, .. } in &found.hindered {
            let (position, cause) = (position.get(), with_causes(error));
            if format.json {
                output.json(&Hinders { key, kind: "hindered", position, cause })?;
            } else {
                output.line(format_args!("hindered {key:?} from position {position} on: {cause}"))?;
            }
        }
        if !format.json {
            let others = if found.documents.len() == 1 { "another one" } else { "others" };
            output.line(format_args!("{} would be {others}", counted(found.documents.len(), "document")))?;
            if !found.hindered.is_empty() {
                let count = counted(found.hindered.len(), "document");
                output.line(format_args!(
                    "{count} could not be folded to the end: the reader would stop, or park the key"
                ))?;
            }
        }
        output.flush()?;
        Ok(if found.hindered.is_empty() { Outcome::Well } else { Outcome::No })
    }
}

/// A document that would not be folded to the end.
#[derive(Serialize)]
struct Hinders<'a> {
    key: &'a str,
    kind: &'static str,
    position: u64,
    cause: String,
}

fn print(alternative: &Alternative, data: bool, format: Format, output: &mut Output) -> std::io::Result<()> {
    let Alternative { key, actual, hypothetical } = alternative;
    let (actual, hypothetical) = (actual.as_deref(), hypothetical.as_deref());
    let (kind, fields) = match (actual, hypothetical) {
        (None, _) => ("new", Vec::new()),
        (_, None) => ("gone", Vec::new()),
        (Some(actual), Some(hypothetical)) => ("differs", differing(actual, hypothetical)),
    };
    if format.json {
        let (actual, hypothetical) = (actual.filter(|_| data), hypothetical.filter(|_| data));
        let (actual, hypothetical) = (actual.map(Data::of), hypothetical.map(Data::of));
        return output.json(&Differs { key, kind, fields, actual, hypothetical });
    }
    let place = if fields.is_empty() { String::new() } else { format!(" in {}", fields.join(", ")) };
    output.line(format_args!("{kind:<8} {key:?}{place}"))?;
    for (name, document) in [("actual", actual), ("hypothetical", hypothetical)] {
        if let Some(document) = document.filter(|_| data) {
            output.line(format_args!("         {name}: {}", Data::of(document).text()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_from_arguments() {
        assert_eq!(replacement(r#"17={"a":"="}"#), Ok((17, r#"{"a":"="}"#.to_owned())));
        for text in ["17", "x={}", "17={", "=1"] {
            assert!(replacement(text).is_err(), "{text}");
        }
        let (stream, added) = event(r#"order-7 order.paid 2 {"by": "card"}"#).expect("an event");
        assert_eq!((stream.as_str(), &*added.name, added.schema_version), ("order-7", "order.paid", 2));
        assert_eq!(&added.payload[..], br#"{"by": "card"}"#);
        for text in
            ["", "order-7 order.paid 1", "order-7 order.paid x {}", "order order.paid 1 {}", "order-7 order.paid 1 {"]
        {
            assert!(event(text).is_err(), "{text}");
        }
    }
}
