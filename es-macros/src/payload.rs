//! How the content of one kind of event becomes JSON and back.
//!
//! serde's own derives do the work, on structs that are generated inside the function bodies: so
//! its attributes mean what they always mean, and the user's type needs no serde derive.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Attribute, Field, Fields, LitStr, Member, Variant, spanned::Spanned};

use crate::input::Errors;

const ORDER_MAY_CHANGE: &str = "stored fields need names, because their order may change; give the fields names";

/// The content of a kind of event: a variant or a struct.
pub(crate) struct Payload<'a> {
    of: &'a Ident,
    /// `None` for a struct.
    variant: Option<&'a Ident>,
    fields: Vec<PayloadField<'a>>,
    newtype: bool,
    serde: Vec<&'a Attribute>,
}

struct PayloadField<'a> {
    member: Member,
    local: Ident,
    ty: TokenStream,
    field: &'a Field,
}

impl<'a> Payload<'a> {
    /// The content of `variant`, a variant of `of`.
    pub(crate) fn of_variant(variant: &'a Variant, of: &'a Ident, errors: &mut Errors) -> Self {
        let Variant { attrs, ident, fields, .. } = variant;
        if unnamed(fields).is_some_and(|fields| fields != 1) {
            let message = if fields.is_empty() {
                format!("this variant has no fields; write `{ident}` without parentheses")
            } else {
                format!("{ORDER_MAY_CHANGE}: `{ident} {{ field: Type, … }}`")
            };
            errors.at(fields, message);
        }
        Self::new(of, Some(ident), fields, attrs)
    }

    /// The content of the struct `of`.
    pub(crate) fn of_struct(
        of: &'a Ident,
        fields: &'a Fields,
        attributes: &'a [Attribute],
        errors: &mut Errors,
    ) -> Self {
        if unnamed(fields).is_some_and(|fields| fields != 1) {
            let message = if fields.is_empty() {
                format!("this struct has no fields; write `struct {of};`")
            } else {
                format!("{ORDER_MAY_CHANGE}: `struct {of} {{ field: Type, … }}`")
            };
            errors.at(fields, message);
        }
        Self::new(of, None, fields, attributes)
    }

    fn new(of: &'a Ident, variant: Option<&'a Ident>, fields: &'a Fields, attributes: &'a [Attribute]) -> Self {
        let newtype = unnamed(fields).is_some();
        let fields = fields.members().zip(fields).enumerate();
        let fields = fields.map(|(index, (member, field))| PayloadField {
            member,
            local: format_ident!("__field{index}"),
            ty: without_self(field.ty.to_token_stream(), of),
            field,
        });
        Self { of, variant, fields: fields.collect(), newtype, serde: serde_attributes(attributes) }
    }

    /// The path of its constructor; `this` is the type.
    fn path(&self, this: &TokenStream) -> TokenStream {
        let variant = self.variant.map(|variant| quote!(::#variant));
        quote!(#this #variant)
    }

    /// The match arm that writes it.
    pub(crate) fn serialize_arm(&self) -> TokenStream {
        let path = self.path(&quote!(Self));
        if self.fields.is_empty() {
            return quote!(#path { .. } => __es::__private::serialize_no_fields(__serializer),);
        }
        // A struct of borrowed fields would be simpler, but a `with` or `skip_serializing_if` that
        // is generic need not accept a `&&T`. So serde gets the fields' own types, on behalf of a
        // "remote" type that is the user's own, and borrows the values through getters.
        let remote = self.of.to_string();
        let getters = self.fields.iter().map(|field| self.getter(field));
        let shape = self.shape(|PayloadField { local, field, .. }| {
            let getter = local.to_string();
            // Located at the type, so that serde's complaints about it are shown there.
            quote_spanned!(field.ty.span()=> #[serde(getter = #getter)])
        });
        quote! {
            #path { .. } => {
                #(#getters)*
                #[derive(__es::__private::serde::Serialize)]
                #[serde(crate = "__es::__private::serde", remote = #remote)]
                #shape
                __Shape::serialize(self, __serializer)
            }
        }
    }

    /// The function that borrows `field` from the event; it is only called in the variant's arm.
    fn getter(&self, PayloadField { member, local, ty, .. }: &PayloadField<'_>) -> TokenStream {
        let of = self.of;
        let path = self.path(&quote!(#of));
        quote! {
            fn #local(event: &#of) -> &#ty {
                match event {
                    #path { #member: value, .. } => value,
                    #[allow(unreachable_patterns)]
                    _ => ::core::unreachable!(),
                }
            }
        }
    }

    /// The block that reads it from `__payload`.
    pub(crate) fn decode_block(&self, name: &LitStr) -> TokenStream {
        let object = self.fields.is_empty().then(|| {
            // serde lets a struct without fields be an array, too.
            let ignored = quote!(__es::__private::serde::de::IgnoredAny);
            quote! {
                __es::__private::decode::<
                    ::std::collections::BTreeMap<::std::string::String, #ignored>
                >(__payload)?;
            }
        });
        let fields = (!self.fields.is_empty() || !self.serde.is_empty()).then(|| {
            let expecting = format!("the fields of `{}`", name.value());
            let expecting = (!mentions(&self.serde, "expecting")).then(|| quote!(#[serde(expecting = #expecting)]));
            let shape = self.shape(|_| TokenStream::new());
            let pattern = self.construct(&quote!(__Shape));
            quote! {
                #[derive(__es::__private::serde::Deserialize)]
                #[serde(crate = "__es::__private::serde")]
                #expecting
                #shape
                let #pattern = __es::__private::decode::<__Shape>(__payload)?;
            }
        });
        let value = self.construct(&self.path(&quote!(Self)));
        quote! {{ #fields #object ::core::result::Result::Ok(#value) }}
    }

    /// The struct `__Shape` with its fields and serde attributes.
    fn shape(&self, extra: impl Fn(&PayloadField<'_>) -> TokenStream) -> TokenStream {
        let serde = &self.serde;
        let fields = self.fields.iter().map(|field| {
            let (extra, ty) = (extra(field), &field.ty);
            let serde = serde_attributes(&field.field.attrs);
            let name = field.field.ident.as_ref().map(|name| quote!(#name:));
            quote!(#extra #(#serde)* #name #ty)
        });
        if self.newtype {
            quote!(#(#serde)* struct __Shape(#(#fields),*);)
        } else {
            quote!(#(#serde)* struct __Shape { #(#fields),* })
        }
    }

    /// `path { member: __field0, … }`, which is a pattern as well; tuples allow it, too.
    fn construct(&self, path: &TokenStream) -> TokenStream {
        let members = self.fields.iter().map(|field| &field.member);
        let locals = self.fields.iter().map(|field| &field.local);
        quote!(#path { #(#members: #locals),* })
    }
}

/// How many fields without names there are, if they have none.
fn unnamed(fields: &Fields) -> Option<usize> {
    matches!(fields, Fields::Unnamed(_)).then(|| fields.len())
}

fn serde_attributes(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("serde")).collect()
}

fn mentions(attributes: &[&Attribute], word: &str) -> bool {
    let mut tokens = attributes.iter().flat_map(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.tokens.clone(),
        _ => TokenStream::new(),
    });
    tokens.any(|token| matches!(token, TokenTree::Ident(ident) if ident == word))
}

/// `Self` would mean another type in a generated struct.
fn without_self(tokens: TokenStream, of: &Ident) -> TokenStream {
    let replace = |token| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            let mut of = of.clone();
            of.set_span(ident.span());
            of.into()
        }
        TokenTree::Group(group) => {
            let mut replaced = Group::new(group.delimiter(), without_self(group.stream(), of));
            replaced.set_span(group.span());
            replaced.into()
        }
        other => other,
    };
    tokens.into_iter().map(replace).collect()
}
