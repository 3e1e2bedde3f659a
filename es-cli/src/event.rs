//! How events are printed.

use std::io;

use clap::Args;
use es_core::{Metadata, Position, RecordedEvent, Version};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    output::{Format, Output},
    time,
};

/// How events are printed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Shown {
    /// Prints what the events hold, too. It may be personal
    #[arg(long)]
    data: bool,

    #[command(flatten)]
    format: Format,
}

/// An event as a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    position: Position,
    stream: &'a str,
    version: Version,
    id: Uuid,
    recorded_at: String,
    #[serde(rename = "type")]
    name: &'a str,
    schema_version: u32,
    metadata: &'a Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

/// A payload or document as it was written, to the last digit; as a text if it is no JSON.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Data<'a> {
    Json(&'a RawValue),
    Text(String),
}

impl<'a> Data<'a> {
    pub(crate) fn of(stored: &'a [u8]) -> Self {
        serde_json::from_slice::<&RawValue>(stored)
            .map_or_else(|_| Self::Text(String::from_utf8_lossy(stored).into_owned()), Self::Json)
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Json(json) => json.get(),
            Self::Text(text) => text,
        }
    }
}

impl Shown {
    pub(crate) fn is_json(self) -> bool {
        self.format.json
    }

    pub(crate) fn has_data(self) -> bool {
        self.data
    }

    /// Prints `events`, each on a line of its own.
    pub(crate) fn print(self, events: &[RecordedEvent], output: &mut Output) -> io::Result<()> {
        for event in events {
            let data = self.data.then(|| Data::of(&event.data.payload));
            if self.format.json {
                output.json(&Line {
                    position: event.position,
                    stream: event.stream.as_str(),
                    version: event.version,
                    id: event.id,
                    recorded_at: time::text(event.recorded_at),
                    name: &event.data.name,
                    schema_version: event.data.schema_version,
                    metadata: &event.metadata,
                    data,
                })?;
                continue;
            }
            let metadata = match event.metadata.encode() {
                Some(metadata) => format!("  {}", String::from_utf8_lossy(&metadata)),
                None => String::new(),
            };
            output.line(format_args!(
                "{position:>8}  {time}  {stream} {version}  {name} v{schema}{metadata}",
                position = event.position.get(),
                time = time::text(event.recorded_at),
                stream = event.stream,
                version = event.version,
                name = event.data.name,
                schema = event.data.schema_version,
            ))?;
            if let Some(data) = data {
                output.line(format_args!("          {}", data.text()))?;
            }
        }
        output.flush()
    }
}
