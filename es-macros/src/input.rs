//! What both derives ask of the type they stand on, and how they complain.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::{Data, DataEnum, DeriveInput, Error};

/// The mistakes found so far, so that one compilation shows all of them.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    /// Notes one that is underlined at `tokens`.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl AsRef<str>) {
        self.add(Error::new_spanned(tokens, message.as_ref()));
    }

    /// Notes one.
    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    /// The value, unless it failed: then that is noted.
    pub(crate) fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// The derived code, which is only worth something without mistakes.
    pub(crate) fn or(self, code: impl FnOnce() -> TokenStream) -> syn::Result<TokenStream> {
        self.0.map_or_else(|| Ok(code()), Err)
    }
}

/// How a derive presents itself in its errors.
pub(crate) struct Derive {
    /// Its name.
    pub(crate) name: &'static str,
    /// For what it is.
    pub(crate) types: &'static str,
    /// What one variant stands for.
    pub(crate) variant: &'static str,
    /// A variant as it should be written.
    pub(crate) example: &'static str,
}

/// The enum that `input` must be: with variants and without generics.
pub(crate) fn enum_of<'a>(input: &'a DeriveInput, derive: &Derive, errors: &mut Errors) -> syn::Result<&'a DataEnum> {
    let Derive { name, types, variant, example } = derive;
    let instead = format!("write `enum {} {{ {example} }}`", input.ident);
    let wrong_kind = |span: Span, kind: &str| {
        let message = format!("`{name}` is for {types}, not for {kind}");
        Err(Error::new(span, format!("{message}; {instead}")))
    };
    let data = match &input.data {
        Data::Enum(data) => data,
        Data::Struct(data) => return wrong_kind(data.struct_token.span, "a struct"),
        Data::Union(data) => return wrong_kind(data.union_token.span, "a union"),
    };
    reject_generics(input, derive, "remove them and name the types in the variants", errors);
    if data.variants.is_empty() {
        let message = format!("`{}` needs a variant for each {variant}", input.ident);
        errors.add(Error::new(input.ident.span(), format!("{message}; {instead}")));
    }
    Ok(data)
}

/// A wire name stands for one type.
pub(crate) fn reject_generics(input: &DeriveInput, derive: &Derive, advice: &str, errors: &mut Errors) {
    if !input.generics.params.is_empty() {
        let name = derive.name;
        errors.at(
            &input.generics,
            format!("`{name}` needs one concrete type and cannot have generic parameters; {advice}"),
        );
    }
}

/// `PlacedOrder` as `placed_order`: a valid wire name for an advice, whatever `text` holds.
pub(crate) fn snake_case(text: &str) -> String {
    let mut snake = String::new();
    let mut after_lower = false;
    for letter in text.trim_start_matches("r#").chars() {
        if letter.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        snake.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    snake
}
