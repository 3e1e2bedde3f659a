//! One kind of event: what it adds to each function of the trait.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Type, spanned::Spanned};

use crate::{attributes::Schema, payload::Payload, rules::Upcaster};

/// A variant, or all of a struct.
pub(crate) struct Kind<'a> {
    pub(crate) ident: &'a Ident,
    /// The path of its constructor.
    pub(crate) path: TokenStream,
    pub(crate) content: Content<'a>,
    /// The arm that makes its tags, if it has some.
    pub(crate) tags: Option<TokenStream>,
}

pub(crate) enum Content<'a> {
    /// It has a schema and a payload of its own.
    Own { schema: Schema, payload: Payload<'a> },
    /// It wraps an event of this type, from which it has both.
    Inherited(&'a Type),
}

impl<'a> Content<'a> {
    /// The type of the event that it wraps.
    pub(crate) fn wraps(&self) -> Option<&'a Type> {
        match self {
            Self::Own { .. } => None,
            Self::Inherited(ty) => Some(ty),
        }
    }

    /// The expression of its wire name.
    pub(crate) fn name(&self) -> TokenStream {
        match self {
            Self::Own { schema, .. } => schema.name.to_token_stream(),
            Self::Inherited(ty) => quote!(<#ty as __es::Event>::SCHEMAS[0].name),
        }
    }
}

impl Kind<'_> {
    /// Its entry in `SCHEMAS`.
    pub(crate) fn schema(&self) -> TokenStream {
        match &self.content {
            Content::Own { schema: Schema { name, version, .. }, .. } => {
                quote!(__es::__private::EventSchema { name: #name, version: #version })
            }
            Content::Inherited(ty) => quote!(<#ty as __es::Event>::SCHEMAS[0]),
        }
    }

    pub(crate) fn schema_arm(&self) -> TokenStream {
        let (path, schema) = (&self.path, self.schema());
        quote!(#path { .. } => #schema,)
    }

    pub(crate) fn serialize_arm(&self) -> TokenStream {
        let path = &self.path;
        match &self.content {
            Content::Own { payload, .. } => payload.serialize_arm(),
            Content::Inherited(ty) => {
                quote!(#path(__wrapped) => <#ty as __es::Event>::serialize_payload(__wrapped, __serializer),)
            }
        }
    }

    pub(crate) fn decode_arm(&self) -> TokenStream {
        let path = &self.path;
        match &self.content {
            Content::Own { schema: Schema { name, version, upcasters, .. }, payload } => {
                let current = payload.decode_block(name);
                let upcasts = upcasters.iter().map(upcast_arm);
                quote! {
                    #name => match __version {
                        #version => #current
                        #(#upcasts)*
                        found => ::core::result::Result::Err(
                            __es::__private::Undecodable::UnknownVersion { found, current: #version }
                        ),
                    },
                }
            }
            Content::Inherited(ty) => quote! {
                _ if __name == <#ty as __es::Event>::SCHEMAS[0].name => {
                    <#ty as __es::Event>::decode(__name, __version, __payload).map(#path)
                }
            },
        }
    }

    /// What the compiler checks of an event that is wrapped: it is the kind `index` of `of`.
    pub(crate) fn checks(&self, index: usize, of: &Ident) -> Option<TokenStream> {
        let ty = self.content.wraps()?;
        let (variant, wrapped) = (self.ident, ty.to_token_stream().to_string().replace(' ', ""));
        let several = format!(
            "`{variant}` wraps `{wrapped}`, which has several kinds of events; wrap a struct that derives `Event`, or give \
             the variant a wire name of its own"
        );
        let category = format!(
            "`{wrapped}` has another category than `{of}`, which wraps it; write the same category above both, or derive \
             `EventSet` for events of several categories"
        );
        let name = format!("the wire name of `{wrapped}` is that of another variant too; write another one");
        Some(quote_spanned! {ty.span()=>
            const _: () = {
                ::core::assert!(<#ty as __es::Event>::SCHEMAS.len() == 1, #several);
                ::core::assert!(
                    __es::__private::same(<#ty as __es::Event>::CATEGORY, <#of as __es::Event>::CATEGORY),
                    #category
                );
                ::core::assert!(__es::__private::is_only(<#of as __es::Event>::SCHEMAS, #index), #name);
            };
        })
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
