//! Derive macros of Evenfold, an event-sourcing and CQRS framework.
//!
//! Use them through `evenfold` or `es_core`, which re-export both beside the traits of the same names.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod attributes;
mod event;
mod event_set;
mod input;
mod kind;
mod payload;
mod root;
mod rules;
mod tags;

/// Derives `es_core::Event` for an enum with one variant for each kind of event, or for a struct that is one kind of event.
///
/// ```
/// use es_core::Event;
///
/// #[derive(PartialEq, Event)]
/// #[event(category = "order")]
/// enum OrderEvent {
///     #[event(name = "order.placed", version = 2, upcast(1 = placed_without_currency))]
///     Placed { total: String, currency: String },
///     #[event(name = "order.cancelled")]
///     Cancelled,
/// }
///
/// #[derive(serde::Deserialize)]
/// struct PlacedV1 {
///     total: String,
/// }
///
/// fn placed_without_currency(old: PlacedV1) -> OrderEvent {
///     OrderEvent::Placed { total: old.total, currency: "EUR".into() }
/// }
///
/// let placed = OrderEvent::Placed { total: "9.99".into(), currency: "EUR".into() };
/// assert_eq!(placed.encode().unwrap(), r#"{"total":"9.99","currency":"EUR"}"#);
/// assert_eq!(OrderEvent::Cancelled.encode().unwrap(), "{}");
/// ```
///
/// # Attributes
///
/// | where | attribute | meaning |
/// |---|---|---|
/// | enum or struct | `#[event(category = "order")]` | Required. The category of the streams: a lower-case letter, then lower-case letters, digits and `_`; at most 64 bytes, not starting with `es_`. |
/// | variant or struct | `#[event(name = "order.placed")]` | Required, unique in the enum. The wire name: words of lower-case letters, digits and `_`, joined by dots; at most 128 bytes. It is stored and must never change. |
/// | variant or struct | `#[event(version = 2)]` | The schema version that is written, from 1 up; 1 when left out. |
/// | variant or struct | `#[event(upcast(1 = path::to::function))]` | Reads an old version: a `fn(Old) -> Self`, where `Old` implements `Deserialize`. Required for every version before the current one. |
/// | variant or struct | `#[event(tag = "room:{room}")]` | A tag, by which an `EventQuery` finds the event: a text with its fields in braces (`{0}` for the content of a newtype), written with `Display` (so no `Option`: see `tags`). As many as there are things that the event is about. |
/// | variant or struct | `#[event(tags = path::to::function)]` | More tags, from a `fn(&Self) -> Vec<String>` (or another iterator of texts): for what a text with braces cannot say. |
/// | enum | `#[event(tag = "…")]`, `#[event(tags = …)]` | The same for every variant. |
/// | variant or struct | `#[serde(…)]` | A serde *container* attribute for the payload, such as `rename_all` or `deny_unknown_fields`. |
/// | field | `#[serde(…)]` | Any serde field attribute, such as `default`, `with`, `skip_serializing_if` or `flatten`. |
///
/// # Events that are structs
///
/// An event with a type of its own can be passed around and tested alone. A variant that wraps such a type and has no
/// `name` takes its name, its version, its upcasters and its tags. Fields in the tags of the enum, or of that variant, are
/// those of the wrapped event.
///
/// A variant with a `name` of its own takes nothing from the type that it wraps: it stores the content by serde, and its tags
/// can name `{0}` only. Where the compiler says that the variant has no field of that name, remove the `name`.
///
/// ```
/// use es_core::Event;
///
/// #[derive(Debug, Clone, PartialEq, Event)]
/// #[event(category = "order", name = "order.placed", tag = "customer:{customer}")]
/// struct OrderPlaced {
///     customer: String,
/// }
///
/// #[derive(Debug, Clone, PartialEq, Event)]
/// #[event(category = "order")]
/// enum OrderEvent {
///     Placed(OrderPlaced),
///     #[event(name = "order.cancelled")]
///     Cancelled,
/// }
///
/// let placed = OrderPlaced { customer: "ada".into() };
/// assert_eq!(placed.encode().unwrap(), r#"{"customer":"ada"}"#);
/// let event = OrderEvent::Placed(placed.clone());
/// assert_eq!(event.schema(), placed.schema());
/// assert_eq!(event.tags(), placed.tags());
/// ```
///
/// A struct is a set of events too, which holds this one kind only: a reader of `OrderPlaced` stops at `order.cancelled`,
/// since that is in the same category and unknown to it. Let readers listen to the enum.
///
/// # Payloads
///
/// | kind of event | JSON |
/// |---|---|
/// | `Placed { total: String }` | an object of the fields |
/// | `Captured(Capture)` | the content itself |
/// | `Cancelled` | `{}`; any object is accepted when it is read |
///
/// Structs in the same way. The type needs neither `Serialize` nor `Deserialize`. Where an enum has them, for another purpose,
/// their attributes on the enum do not touch the stored payload; those on a struct do.
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::derive(&input)
        .and_then(|implementation| root::scoped(&implementation))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Derives `es_core::EventSet` for an enum whose every variant wraps one member: an `Event` enum or
/// another set.
///
/// ```
/// use es_core::{Event, EventSet};
///
/// # #[derive(PartialEq, Event)] #[event(category = "order")]
/// # enum OrderEvent { #[event(name = "order.placed")] Placed }
/// # #[derive(PartialEq, Event)] #[event(category = "payment")]
/// # enum PaymentEvent { #[event(name = "payment.captured")] Captured }
/// #[derive(EventSet)]
/// enum SalesEvent {
///     Order(OrderEvent),
///     Payment(PaymentEvent),
/// }
/// assert!(SalesEvent::categories().contains("order"));
/// ```
///
/// # Attributes
///
/// | where | attribute | meaning |
/// |---|---|---|
/// | | none | The members tell everything. |
///
/// Its categories are those of its members. An event is offered to the members in the order of the
/// variants and belongs to the first one that has its category, so no two members should share one.
#[proc_macro_derive(EventSet)]
pub fn derive_event_set(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event_set::derive(&input)
        .and_then(|implementation| root::scoped(&implementation))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
