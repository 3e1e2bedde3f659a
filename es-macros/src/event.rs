//! `#[derive(Event)]`.

use std::collections::HashMap;

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Data, DataStruct, DeriveInput, Fields, LitStr, Type, Variant};

use crate::{
    attributes::{self, OfVariant},
    input::{Derive, Errors, enum_of, reject_generics},
    kind::{Content, Kind},
    payload::Payload,
    tags::{self, TagRule, Tagged},
};

const EVENT: Derive = Derive {
    name: "Event",
    types: "enums, with one variant for each kind of event, and for structs, which are one kind of event",
    variant: "kind of event",
    example: "#[event(name = \"order.placed\")] Placed { … }, …",
};

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    match &input.data {
        Data::Struct(data) => of_struct(input, data),
        _ => of_enum(input),
    }
}

fn of_struct(input: &DeriveInput, data: &DataStruct) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let (ident, fields) = (&input.ident, &data.fields);
    reject_generics(input, &EVENT, "remove them and name the types of the fields", &mut errors);
    let payload = Payload::of_struct(ident, fields, &input.attrs, &mut errors);
    let (category, schema) = attributes::of_struct(input, fields, &mut errors);
    let kind = schema.map(|schema| {
        let (path, name) = (quote!(Self), &schema.name);
        let tagged = Tagged { path: path.clone(), ident, fields, name: quote!(#name), wraps: None };
        let tags = tags::arm(&tagged, &schema.tags, &mut errors);
        Kind { ident, path, content: Content::Own { schema, payload }, tags }
    });
    let kinds: Vec<_> = kind.into_iter().collect();
    errors.or(|| implementation(ident, category.as_ref(), &kinds))
}

fn of_enum(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let data = enum_of(input, &EVENT, &mut errors)?;
    let (category, tags_of_all) = attributes::of_enum(&input.attrs, &input.ident, &mut errors);
    let prefix = category.as_ref().map_or_else(|| "order".to_owned(), LitStr::value);
    let variants = data.variants.iter();
    let kinds: Vec<_> =
        variants.filter_map(|variant| kind(variant, &input.ident, &prefix, &tags_of_all, &mut errors)).collect();
    check_names(&kinds, &mut errors);
    errors.or(|| implementation(&input.ident, category.as_ref(), &kinds))
}

/// The kind of event that `variant` is.
fn kind<'a>(
    variant: &'a Variant,
    of: &'a Ident,
    category: &str,
    tags_of_all: &[TagRule],
    errors: &mut Errors,
) -> Option<Kind<'a>> {
    let Variant { ident, fields, .. } = variant;
    let payload = Payload::of_variant(variant, of, errors);
    let (content, own_tags) = match attributes::of_variant(variant, category, errors)? {
        OfVariant::Own(schema) => {
            let tags = schema.tags.clone();
            (Content::Own { schema, payload }, tags)
        }
        OfVariant::Inherited(tags) => (Content::Inherited(wrapped(fields)?), tags),
    };
    let path = quote!(Self::#ident);
    let wraps = content.wraps();
    let tagged = Tagged { path: path.clone(), ident, fields, name: content.name(), wraps };
    let tags = tags::arm(&tagged, &[tags_of_all, &own_tags].concat(), errors);
    Some(Kind { ident, path, content, tags })
}

/// The type of the only field.
fn wrapped(fields: &Fields) -> Option<&Type> {
    fields.iter().map(|field| &field.ty).next()
}

/// Checks the wire names that are written here. Those of wrapped events are known to the compiler only, which checks them
/// in [`Kind::checks`].
fn check_names(kinds: &[Kind<'_>], errors: &mut Errors) {
    let mut taken: HashMap<String, &Ident> = HashMap::new();
    for Kind { ident, content, .. } in kinds {
        let Content::Own { schema, .. } = content else { continue };
        let name = schema.name.value();
        if let Some(first) = taken.get(&name) {
            let message = format!("{name:?} is already the wire name of `{first}`");
            errors.at(&schema.name, format!("{message}; write another one for `{ident}`"));
        } else {
            taken.insert(name, ident);
        }
    }
}

fn implementation(ident: &Ident, category: Option<&LitStr>, kinds: &[Kind<'_>]) -> TokenStream {
    let schemas = kinds.iter().map(Kind::schema);
    let schema_arms = kinds.iter().map(Kind::schema_arm);
    let serialize_arms = kinds.iter().map(Kind::serialize_arm);
    // Names that are no literals come after those that are.
    let (own, inherited): (Vec<_>, Vec<_>) = kinds.iter().partition(|kind| kind.content.wraps().is_none());
    let decode_arms = own.into_iter().chain(inherited).map(Kind::decode_arm);
    let checks = kinds.iter().enumerate().map(|(index, kind)| kind.checks(index, ident));
    let tags = tags_function(kinds);
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl __es::Event for #ident {
            const CATEGORY: &'static str = #category;

            const SCHEMAS: &'static [__es::__private::EventSchema] = &[#(#schemas),*];

            fn schema(&self) -> __es::__private::EventSchema {
                match self {
                    #(#schema_arms)*
                }
            }

            fn serialize_payload<__S: __es::__private::serde::Serializer>(
                &self,
                __serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                match self {
                    #(#serialize_arms)*
                }
            }

            #tags

            fn decode(
                __name: &::core::primitive::str,
                __version: ::core::primitive::u32,
                __payload: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, __es::__private::Undecodable> {
                match __name {
                    #(#decode_arms)*
                    _ => ::core::result::Result::Err(__es::__private::Undecodable::UnknownName(
                        ::std::borrow::ToOwned::to_owned(__name),
                    )),
                }
            }
        }

        #(#checks)*
    }
}

/// `fn tags`, if one of `kinds` has some; else the trait's own answer is right.
fn tags_function(kinds: &[Kind<'_>]) -> Option<TokenStream> {
    let arms: Vec<_> = kinds.iter().filter_map(|kind| kind.tags.as_ref()).collect();
    let others = (arms.len() < kinds.len()).then(|| quote!(_ => {}));
    (!arms.is_empty()).then(|| {
        quote! {
            fn tags(
                &self,
            ) -> ::core::result::Result<::std::vec::Vec<__es::Tag>, __es::TagError> {
                let mut __tags = ::std::vec::Vec::new();
                match self {
                    #(#arms)*
                    #others
                }
                ::core::result::Result::Ok(__tags)
            }
        }
    })
}
