//! `#[derive(EventSet)]`.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{DeriveInput, Fields, Ident, Type, Variant};

use crate::input::{Derive, Errors, enum_of};

const EVENT_SET: Derive = Derive {
    name: "EventSet",
    types: "enums, with one variant for each event enum that it holds",
    variant: "event enum that it holds",
    example: "Order(OrderEvent), …",
};

/// A variant with what it wraps.
struct Member<'a> {
    variant: &'a Ident,
    ty: &'a Type,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut errors = Errors::default();
    let data = enum_of(input, &EVENT_SET, &mut errors)?;
    let members: Vec<_> = data.variants.iter().filter_map(|variant| member(variant, &mut errors)).collect();
    check_types(&members, &mut errors);
    errors.or(|| implementation(&input.ident, &members))
}

fn member<'a>(variant: &'a Variant, errors: &mut Errors) -> Option<Member<'a>> {
    let Variant { ident, fields, .. } = variant;
    if let Fields::Unnamed(fields) = fields
        && let (Some(field), 1) = (fields.unnamed.first(), fields.unnamed.len())
    {
        return Some(Member { variant: ident, ty: &field.ty });
    }
    let message = format!(
        "a variant of an `EventSet` wraps one event enum; write `{ident}({ident}Event)` and move \
         what is in `{ident}` into that enum"
    );
    match fields {
        Fields::Unit => errors.at(ident, message),
        _ => errors.at(fields, message),
    }
    None
}

fn check_types(members: &[Member<'_>], errors: &mut Errors) {
    let mut taken: HashMap<String, &Ident> = HashMap::new();
    for Member { variant, ty } in members {
        let name = ty.to_token_stream().to_string();
        if let Some(first) = taken.get(&name) {
            let message = format!("`{first}` already takes every event of this type");
            errors.at(ty, format!("{message}; remove `{variant}` or write its own type here"));
        } else {
            taken.insert(name, variant);
        }
    }
}

fn implementation(ident: &Ident, members: &[Member<'_>]) -> TokenStream {
    let variants = members.iter().map(|member| member.variant);
    let types: Vec<_> = members.iter().map(|member| member.ty).collect();
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl __es::EventSet for #ident {
            fn categories() -> __es::__private::Categories {
                __es::__private::Categories::Only(::std::vec::Vec::new())
                    #(.union(<#types as __es::EventSet>::categories()))*
            }

            fn from_recorded(
                __event: &__es::RecordedEvent,
            ) -> ::core::result::Result<::core::option::Option<Self>, __es::__private::Undecodable> {
                #(
                    if let ::core::option::Option::Some(__inner) =
                        <#types as __es::EventSet>::from_recorded(__event)?
                    {
                        return ::core::result::Result::Ok(::core::option::Option::Some(
                            Self::#variants(__inner),
                        ));
                    }
                )*
                ::core::result::Result::Ok(::core::option::Option::None)
            }
        }
    }
}
