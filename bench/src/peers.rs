//! Other frameworks, each used as its documentation recommends, with the best configuration that it offers for the work.

#[cfg(feature = "peers")]
mod entries;

use crate::contender::Work;

/// The frameworks that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    CqrsEs,
    Disintegrate,
    Esrs,
    Evento,
    Eventually,
    Happenstance,
}

impl Peer {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::CqrsEs, Self::Disintegrate, Self::Esrs, Self::Evento, Self::Eventually, Self::Happenstance];

    /// The name of its crate.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CqrsEs => "cqrs-es",
            Self::Disintegrate => "disintegrate",
            Self::Esrs => "esrs",
            Self::Evento => "evento",
            Self::Eventually => "eventually",
            Self::Happenstance => "happenstance",
        }
    }

    /// The crates that are measured.
    pub(crate) fn crates(self) -> &'static [&'static str] {
        match self {
            Self::CqrsEs => &["cqrs-es", "postgres-es"],
            Self::Disintegrate => &["disintegrate", "disintegrate-postgres"],
            Self::Esrs => &["esrs"],
            Self::Evento => &["evento", "evento-sql"],
            Self::Eventually => &["eventually", "eventually-postgres"],
            Self::Happenstance => &["happenstance", "happenstance-postgres"],
        }
    }

    /// Why it cannot do the work, if so; `is_embedded` where the database is a file.
    pub(crate) fn absent(self, work: Work, is_embedded: bool) -> Option<&'static str> {
        match (self, work) {
            (Self::CqrsEs | Self::Disintegrate | Self::Esrs | Self::Eventually, _) if is_embedded => {
                Some("has no store on SQLite")
            }
            (Self::Happenstance, Work::Boundary) => None,
            (Self::Happenstance, _) => Some("is measured where a condition goes beyond a stream"),
            (Self::Esrs | Self::Eventually, Work::LoadSnapshot) => Some("has no snapshots"),
            (Self::CqrsEs | Self::Esrs | Self::Evento | Self::Eventually, Work::Boundary) => {
                Some("has no conditions beyond a stream")
            }
            (_, Work::Import) => Some("does not import in bulk"),
            _ => None,
        }
    }
}

/// In a program that was built without them, none takes part.
#[cfg(not(feature = "peers"))]
mod entries {
    use anyhow::{Result, bail};

    use crate::contender::{Contender, Task};

    impl super::Peer {
        pub(crate) async fn create_tables(self, _: &Task) -> Result<()> {
            bail!("{} is not in this build", self.name())
        }

        pub(crate) async fn connect(self, _: &Task) -> Result<Box<dyn Contender>> {
            bail!("{} is not in this build", self.name())
        }
    }
}
