//! The problems of this service. Those that every service has are in `evenfold::http`.

use axum::http::StatusCode;
pub(super) use evenfold::http::Problem;
use evenfold::{AppendError, DecideError};

use crate::{order::OrderRefusal, placing::PlaceError};

macro_rules! kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal,)*) => {
        /// The kinds of problems. Clients tell them apart by their type.
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Kind { $($name,)* }

        impl Kind {
            fn problem(self) -> Problem {
                match self {
                    $(Self::$name => Problem::new(StatusCode::$status, concat!("urn:order-service:", $slug), $title),)*
                }
            }
        }
    };
}

kinds! {
    Malformed = BAD_REQUEST "malformed" "The request cannot be read",
    Parameter = BAD_REQUEST "parameter" "A parameter is wrong",
    NotFound = NOT_FOUND "not-found" "Not found",
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed" "The path does not have this method",
    Illegal = CONFLICT "illegal-transition" "The order does not allow this step",
    Driven = CONFLICT "driven" "The order takes its steps by itself",
    TooManyOpen = CONFLICT "too-many-open-orders" "The customer has too many open orders",
    Stale = PRECONDITION_FAILED "stale" "The order has changed in the meantime",
    Invalid = UNPROCESSABLE_ENTITY "invalid" "The request breaks a rule",
}

impl Kind {
    /// A problem of this kind.
    pub(super) fn because(self, detail: impl Into<String>) -> Problem {
        self.problem().detail(detail)
    }

    /// A problem of this kind with one field, parameter or header.
    pub(super) fn in_field(self, field: impl Into<String>, detail: impl Into<String>) -> Problem {
        self.problem().field(field, detail)
    }
}

/// No order with this id was placed.
pub(super) fn unknown_order() -> Problem {
    Kind::NotFound.because(OrderRefusal::Unknown.to_string())
}

impl From<OrderRefusal> for Problem {
    fn from(refusal: OrderRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            OrderRefusal::Unknown => unknown_order(),
            OrderRefusal::AlreadyPlaced | OrderRefusal::Illegal { .. } => Kind::Illegal.because(detail),
            OrderRefusal::Driven => Kind::Driven.because(detail),
            OrderRefusal::TooManyOpen => Kind::TooManyOpen.because(detail),
            OrderRefusal::Empty => Kind::Invalid.in_field("items", detail),
            OrderRefusal::Total { .. } | OrderRefusal::TooExpensive => Kind::Invalid.in_field("totalAmount", detail),
        }
    }
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            // The order is closed, or another customer's.
            PlaceError::Decide(DecideError::Append(AppendError::Conflict(_))) => OrderRefusal::AlreadyPlaced.into(),
            PlaceError::Decide(error) => error.into(),
            PlaceError::Stream(_) => Problem::failed(&error),
        }
    }
}
