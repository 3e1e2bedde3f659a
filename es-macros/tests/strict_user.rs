//! Generated code keeps quiet in a crate with the strictest lints.
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    unused_lifetimes,
    single_use_lifetimes,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use es_core::{Event, EventSet, backend::Categories};

/// Names of its own that generated code could confuse with std's and its own.
pub mod shadowed {
    use es_core::Event;

    /// Not `std::result::Result`.
    pub type Result = String;
    /// Not `std::option::Option`.
    pub type Option = String;
    /// Not the generated type of this name.
    pub type Vec = String;
    /// Not the primitive.
    #[expect(non_camel_case_types, reason = "it shadows a primitive")]
    pub type u32 = String;

    /// All kinds of variants.
    #[derive(Debug, PartialEq, Eq, Event)]
    #[event(category = "loud")]
    pub enum Loud {
        /// Fields.
        #[event(name = "loud.fields", version = 2, upcast(1 = Self::from_v1))]
        Fields {
            /// One.
            name: Result,
            /// Two.
            version: Option,
            /// Three.
            r#type: Vec,
            /// Four.
            payload: u32,
        },
        /// A newtype.
        #[event(name = "loud.newtype")]
        Newtype(Result),
        /// A second newtype.
        #[event(name = "loud.newtype_2")]
        Newtype2(Result),
        /// A unit.
        #[event(name = "loud.unit")]
        Unit,
        /// A second unit.
        #[deprecated]
        #[event(name = "loud.unit_2")]
        Unit2,
    }

    impl Loud {
        const fn from_v1(name: Result) -> Self {
            Self::Newtype(name)
        }
    }
}

/// A set.
#[derive(Debug, EventSet)]
pub enum Set {
    /// Its only member.
    Loud(shadowed::Loud),
}

#[test]
fn generated_code_keeps_quiet() {
    assert_eq!(Set::categories(), Categories::Only(vec!["loud"]));
    let event = <shadowed::Loud as Event>::decode("loud.fields", 1, b"\"old\"");
    assert!(matches!(event, Ok(shadowed::Loud::Newtype(name)) if name == "old"));
}
