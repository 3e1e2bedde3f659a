//! `#[derive(Event)]`.

use std::collections::HashMap;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, spanned::Spanned};

use crate::{
    attributes::{self, Schema},
    input::{Derive, Errors, enum_of},
    payload::Payload,
    rules::Upcaster,
    tags,
};

const EVENT: Derive =
    Derive {
        name: "Event", variant: "kind of event", example: "#[event(name = \"order.placed\")] Placed { … }, …"
    };

/// One variant.
struct Kind<'a> {
    variant: &'a Ident,
    schema: Schema,
    payload: Payload<'a>,
    /// The arm that makes its tags, if it has some.
    tags: Option<TokenStream>,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let data = enum_of(input, &EVENT, &mut errors)?;
    let (category, tags_of_all) = attributes::category(&input.attrs, &input.ident, &mut errors);
    let prefix = category.as_ref().map_or_else(|| "order".to_owned(), syn::LitStr::value);
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for variant in &data.variants {
        let payload = Payload::new(variant, &input.ident, &mut errors);
        if let Some(schema) = attributes::schema(variant, &prefix, &mut errors) {
            let rules = [&tags_of_all[..], &schema.tags].concat();
            let tags = tags::arm(variant, &schema.name, &rules, &mut errors);
            kinds.push(Kind { variant: &variant.ident, schema, payload, tags });
        }
    }
    check_names(&kinds, &mut errors);
    errors.or(|| implementation(&input.ident, category.as_ref(), &kinds))
}

fn check_names(kinds: &[Kind<'_>], errors: &mut Errors) {
    let mut taken: HashMap<String, &Ident> = HashMap::new();
    for Kind { variant, schema, .. } in kinds {
        let name = schema.name.value();
        if let Some(first) = taken.get(&name) {
            let message = format!("{name:?} is already the wire name of `{first}`");
            errors.at(&schema.name, format!("{message}; write another one for `{variant}`"));
        } else {
            taken.insert(name, variant);
        }
    }
}

fn implementation(ident: &Ident, category: Option<&syn::LitStr>, kinds: &[Kind<'_>]) -> TokenStream {
    let variants: Vec<_> = kinds.iter().map(|kind| kind.variant).collect();
    let schemas: Vec<_> = kinds.iter().map(Kind::schema).collect();
    let serialize_arms = kinds.iter().map(|kind| kind.payload.serialize_arm());
    let decode_arms = kinds.iter().map(Kind::decode_arm);
    let tags = tags_function(kinds);
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl __es::Event for #ident {
            const CATEGORY: &'static str = #category;

            const SCHEMAS: &'static [__es::EventSchema] = &[#(#schemas),*];

            fn schema(&self) -> __es::EventSchema {
                match self {
                    #(Self::#variants { .. } => #schemas,)*
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
            ) -> ::core::result::Result<Self, __es::Undecodable> {
                match __name {
                    #(#decode_arms)*
                    _ => ::core::result::Result::Err(__es::Undecodable::UnknownName(
                        ::std::borrow::ToOwned::to_owned(__name),
                    )),
                }
            }
        }
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

impl Kind<'_> {
    fn schema(&self) -> TokenStream {
        let Schema { name, version, .. } = &self.schema;
        quote!(__es::EventSchema { name: #name, version: #version })
    }

    fn decode_arm(&self) -> TokenStream {
        let Schema { name, version, upcasters, .. } = &self.schema;
        let current = self.payload.decode_block(name);
        let upcasts = upcasters.iter().map(upcast_arm);
        quote! {
            #name => match __version {
                #version => #current
                #(#upcasts)*
                found => ::core::result::Result::Err(
                    __es::Undecodable::UnknownVersion { found, current: #version }
                ),
            },
        }
    }
}

/// Located at the function, so that a wrong signature is reported there; resolved like the rest, so
/// that `__payload` is found when the function's path comes out of a macro.
fn upcast_arm(Upcaster { from, function, .. }: &Upcaster) -> TokenStream {
    let span = Span::call_site().located_at(function.span());
    quote_spanned! {span=>
        #from => {
            let __old = __es::__private::decode(__payload)?;
            ::core::result::Result::Ok(#function(__old))
        }
    }
}
